//! Bodies of requests: limits, compression, and the three encodings.

use std::io::Read;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http_body_util::BodyExt;
use kube_codec::{Envelope, MAGIC, Parsed, parse_json, parse_yaml, proto, typed, unwrap_unknown};
use kube_spec::{Resource, StructId, types};
use serde_json::Value;

use crate::error::ApiError;

/// Bytes a body may have, also after decompression.
pub const MAX_BODY: usize = 3 << 20;

/// Reads a body within the limits.
///
/// # Errors
/// 413 when it is too large, 400 when it breaks off or does not decompress.
pub async fn read(headers: &HeaderMap, body: Body) -> Result<Bytes, ApiError> {
    let bytes = collect(body).await?;
    let encoding = headers.get(CONTENT_ENCODING).and_then(|v| v.to_str().ok()).unwrap_or_default();
    match encoding {
        "" | "identity" => Ok(bytes),
        "gzip" => {
            let mut out = Vec::new();
            let mut reader = flate2::read::GzDecoder::new(&bytes[..]).take(MAX_BODY as u64 + 1);
            reader
                .read_to_end(&mut out)
                .map_err(|e| ApiError::bad_request(format!("cannot unzip the body: {e}")))?;
            if out.len() > MAX_BODY { Err(ApiError::too_large(MAX_BODY)) } else { Ok(out.into()) }
        }
        other => Err(ApiError::unsupported_media_type(format!(
            "content encoding {other:?} is not known"
        ))),
    }
}

/// Bytes that are read and thrown away after the limit, so that a client hears the answer before its connection
/// is cut.
const DISCARDED: usize = 32 << 20;

async fn collect(mut body: Body) -> Result<Bytes, ApiError> {
    let (mut bytes, mut seen) = (BytesMut::new(), 0);
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|e| ApiError::bad_request(format!("cannot read the body: {e}")))?;
        let Some(data) = frame.data_ref() else { continue };
        seen += data.len();
        if seen <= MAX_BODY {
            bytes.extend_from_slice(data);
        } else if seen > MAX_BODY + DISCARDED {
            break;
        }
    }
    if seen > MAX_BODY { Err(ApiError::too_large(MAX_BODY)) } else { Ok(bytes.freeze()) }
}

/// How unknown and duplicate fields are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldValidation {
    /// Refused.
    Strict,
    /// Named in Warning headers.
    Warn,
    /// Dropped.
    Ignore,
}

impl FieldValidation {
    /// Reads the query parameter.
    ///
    /// # Errors
    /// 422 as upstream when the value is none of the three.
    pub fn parse(text: &str) -> Result<Self, ApiError> {
        match text {
            "" | "Warn" => Ok(Self::Warn),
            "Strict" => Ok(Self::Strict),
            "Ignore" => Ok(Self::Ignore),
            other => Err(ApiError::bad_request(format!(
                "fieldValidation: Unsupported value: {other:?}: supported values: \"Ignore\", \"Strict\", \"Warn\""
            ))),
        }
    }
}

/// A decoded body.
#[derive(Debug)]
pub struct Decoded {
    /// Canonical object with apiVersion and kind.
    pub object: Value,
    /// What a Warn client hears.
    pub warnings: Vec<String>,
}

/// Media type without parameters.
pub fn media_type(headers: &HeaderMap) -> String {
    let text =
        headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("application/json");
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Decodes a body that must be of the resource's kind.
///
/// # Errors
/// 400 and 415 with the original's texts.
pub fn decode(
    headers: &HeaderMap,
    body: &[u8],
    resource: &'static Resource,
    mode: FieldValidation,
) -> Result<Decoded, ApiError> {
    decode_as(headers, body, resource.type_id(), &resource.api_version(), resource.kind, mode)
}

/// Decodes a body of a named kind.
///
/// # Errors
/// As [`decode`].
pub fn decode_as(
    headers: &HeaderMap,
    body: &[u8],
    id: StructId,
    api_version: &str,
    kind: &str,
    mode: FieldValidation,
) -> Result<Decoded, ApiError> {
    let media = media_type(headers);
    match media.as_str() {
        "application/json" | "application/yaml" | "application/vnd.kubernetes.protobuf" => {}
        _ => {
            return Err(ApiError::unsupported_media_type(
                "the body of the request was in an unknown format - accepted media types include: \
                 application/json, application/yaml, application/vnd.kubernetes.protobuf",
            ));
        }
    }
    if media.ends_with("protobuf") || body.starts_with(MAGIC) {
        return decode_proto(body, id, api_version, kind);
    }
    let parsed = if media.ends_with("yaml") { parse_yaml(body) } else { parse_json(body) };
    let unreadable = |why: String| {
        ApiError::bad_request(format!("couldn't get version/kind; json parse error: {why}"))
    };
    let parsed = parsed.map_err(|e| unreadable(e.to_string()))?;
    decode_tree(parsed, id, api_version, kind, mode)
}

fn decode_proto(
    body: &[u8],
    id: StructId,
    api_version: &str,
    kind: &str,
) -> Result<Decoded, ApiError> {
    let Envelope { api_version: got, kind: got_kind, raw } =
        unwrap_unknown(body).map_err(|e| ApiError::bad_request(e.to_string()))?;
    check_kind(&got, &got_kind, api_version, kind)?;
    let mut object = proto::decode(id.get(), raw)
        .map_err(|e| cannot_handle(kind, api_version, &e.to_string()))?;
    object["apiVersion"] = api_version.into();
    object["kind"] = kind.into();
    Ok(Decoded { object, warnings: Vec::new() })
}

/// Decodes a tree, as [`decode`].
///
/// # Errors
/// As [`decode`].
pub fn decode_tree(
    parsed: Parsed,
    id: StructId,
    api_version: &str,
    kind: &str,
    mode: FieldValidation,
) -> Result<Decoded, ApiError> {
    let Parsed { value, duplicates } = parsed;
    let field = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    check_kind(&field("apiVersion"), &field("kind"), api_version, kind)?;
    let mut unknown = Vec::new();
    let mut object = typed(id.get(), value, &mut unknown)
        .map_err(|e| cannot_handle(kind, api_version, &e.to_string()))?;
    object["apiVersion"] = api_version.into();
    object["kind"] = kind.into();
    let findings: Vec<String> = duplicates
        .iter()
        .map(|path| format!("duplicate field {path:?}"))
        .chain(unknown.iter().map(|path| format!("unknown field {path:?}")))
        .collect();
    match mode {
        FieldValidation::Ignore => Ok(Decoded { object, warnings: Vec::new() }),
        FieldValidation::Warn => Ok(Decoded { object, warnings: findings }),
        FieldValidation::Strict if findings.is_empty() => {
            Ok(Decoded { object, warnings: Vec::new() })
        }
        FieldValidation::Strict => {
            let why = format!("strict decoding error: {}", findings.join(", "));
            Err(cannot_handle(kind, api_version, &why))
        }
    }
}

fn check_kind(got: &str, got_kind: &str, api_version: &str, kind: &str) -> Result<(), ApiError> {
    // A body without them is of the kind the path says.
    if (got.is_empty() || got == api_version) && (got_kind.is_empty() || got_kind == kind) {
        return Ok(());
    }
    let (group, version) = got.split_once('/').unwrap_or(("", got));
    let package_known = types().iter().any(|(_, s)| s.short_name() == got_kind);
    if !package_known {
        return Err(ApiError::bad_request(format!(
            "no kind {got_kind:?} is registered for version {got:?} in scheme \"flotilla\""
        )));
    }
    let group_kind =
        if group.is_empty() { got_kind.to_owned() } else { format!("{got_kind}.{group}") };
    Err(ApiError::bad_request(format!(
        "{group_kind} in version {version:?} cannot be handled as a {kind}: converting ({got}).{got_kind} to \
         ({api_version}).{kind}: unknown conversion"
    )))
}

fn cannot_handle(kind: &str, api_version: &str, why: &str) -> ApiError {
    let version = api_version.rsplit('/').next().unwrap_or_default();
    ApiError::bad_request(format!(
        "{kind} in version {version:?} cannot be handled as a {kind}: {why}"
    ))
}

//! Answers: which encoding and which shape the client asked for.

use std::io::Write;

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, VARY};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::BodyExt;
use kube_codec::{proto, typed, wrap_unknown};
use kube_spec::types;
use serde_json::Value;

use crate::error::ApiError;

/// Encoding of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// `k8s\0` protobuf.
    Protobuf,
}

/// Shape of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// The objects.
    Object,
    /// `meta.k8s.io/v1 Table`
    Table,
    /// `meta.k8s.io/v1 PartialObjectMetadata(List)`
    Metadata,
}

/// What the client accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Output {
    /// Encoding.
    pub encoding: Encoding,
    /// Shape.
    pub shape: Shape,
    /// Indented JSON.
    pub pretty: bool,
}

impl Output {
    /// Plain JSON.
    pub const JSON: Self = Self { encoding: Encoding::Json, shape: Shape::Object, pretty: false };

    /// Reads the Accept header; the first alternative this server can serve wins.
    ///
    /// # Errors
    /// 406 when there is none.
    pub fn negotiate(headers: &HeaderMap, pretty: bool) -> Result<Self, ApiError> {
        let accept = headers.get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("*/*");
        for alternative in accept.split(',').filter(|a| !a.trim().is_empty()) {
            let mut parts = alternative.split(';').map(str::trim);
            let encoding = match parts.next().unwrap_or_default() {
                "application/json" | "*/*" | "application/*" => Encoding::Json,
                "application/yaml" => Encoding::Yaml,
                "application/vnd.kubernetes.protobuf" => Encoding::Protobuf,
                _ => continue,
            };
            let (mut kind, mut group) = ("", "");
            for part in parts {
                match part.split_once('=') {
                    Some(("as", value)) => kind = value,
                    Some(("g", value)) => group = value,
                    _ => {}
                }
            }
            let shape = match (kind, group) {
                ("", _) => Shape::Object,
                ("Table", "meta.k8s.io") => Shape::Table,
                ("PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io") => {
                    Shape::Metadata
                }
                _ => continue,
            };
            if shape == Shape::Table && encoding == Encoding::Protobuf {
                continue;
            }
            return Ok(Self { encoding, shape, pretty });
        }
        Err(ApiError::not_acceptable())
    }

    /// The Content-Type of an answer.
    pub fn content_type(self) -> &'static str {
        match self.encoding {
            Encoding::Json => "application/json",
            Encoding::Yaml => "application/yaml",
            Encoding::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }

    /// Encodes an object that carries apiVersion and kind.
    pub fn encode(self, object: &Value) -> Bytes {
        match self.encoding {
            Encoding::Json if self.pretty => {
                serde_json::to_vec_pretty(object).unwrap_or_default().into()
            }
            Encoding::Json => object.to_string().into(),
            Encoding::Yaml => kube_codec::yaml(object).into(),
            Encoding::Protobuf => protobuf(object).unwrap_or_else(|| object.to_string().into()),
        }
    }

    /// An answer with an object.
    pub fn respond(self, status: u16, object: &Value) -> Response<Body> {
        respond(status, self.content_type(), self.encode(object))
    }
}

/// The protobuf form of an object by its apiVersion and kind.
pub fn protobuf(object: &Value) -> Option<Bytes> {
    let (api_version, kind) = (object["apiVersion"].as_str()?, object["kind"].as_str()?);
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let item = kind.strip_suffix("List").unwrap_or(kind);
    let resource = kube_spec::by_kind(group, version, item);
    let package = match resource {
        Some(resource) => Some(resource.package),
        None if kind == "Scale" => Some("autoscaling/v1"),
        // Kinds without a resource of their own, such as TokenRequest, live where their group does.
        None => kube_spec::resources()
            .iter()
            .find(|r| r.group == group && r.version == version)
            .map(|r| r.package),
    };
    let in_package = package.and_then(|package| types().find(&format!("{package}.{kind}")));
    let spec = in_package.or_else(|| types().find(&format!("meta/v1.{kind}")))?.get();
    let canonical = typed(spec, object.clone(), &mut Vec::new()).ok()?;
    let message = proto::encode(spec, &canonical).ok()?;
    Some(wrap_unknown(api_version, kind, &message).into())
}

/// An answer with bytes.
pub fn respond(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::from(body.into()));
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert("cache-control", HeaderValue::from_static("no-cache, private"));
    response
}

/// A text page.
pub fn text(status: u16, body: impl Into<String>) -> Response<Body> {
    respond(status, "text/plain; charset=utf-8", body.into())
}

impl ApiError {
    /// The answer that carries this failure.
    pub fn respond(&self, output: Output) -> Response<Body> {
        let output = Output { shape: Shape::Object, ..output };
        let mut response = output.respond(self.code, &self.status());
        if self.code == 503 || self.code == 429 || self.code == 504 {
            response.headers_mut().insert("retry-after", HeaderValue::from_static("1"));
        }
        response
    }
}

/// Adds Warning headers.
pub fn warn(response: &mut Response<Body>, warnings: &[String]) {
    for text in warnings {
        let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append("warning", value);
        }
    }
}

/// Answers smaller than this are not worth compressing, as upstream.
const GZIP_FROM: u64 = 128 << 10;

/// Compresses a large answer for clients that take gzip; streams stay as they are.
pub async fn gzip(accepts: bool, response: Response<Body>) -> Response<Body> {
    let size = response.body().size_hint().exact().unwrap_or(0);
    if !accepts || size < GZIP_FROM || response.headers().contains_key(CONTENT_ENCODING) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let Ok(collected) = body.collect().await else {
        return Response::from_parts(parts, Body::empty());
    };
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let plain = collected.to_bytes();
    let packed = encoder.write_all(&plain).and_then(|()| encoder.finish());
    let Ok(packed) = packed else { return Response::from_parts(parts, Body::from(plain)) };
    parts.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    parts.headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    parts.headers.remove(CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(packed))
}

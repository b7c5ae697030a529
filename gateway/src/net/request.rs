//! What happens to a request's headers before it is routed and after.

use std::net::IpAddr;

use http::header::{CONNECTION, HOST, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Uri, Version, request};
use rand::Rng;

use super::hcm::{ConnectionInfo, Hcm};

/// `x-request-id`
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// `x-forwarded-for`
pub const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// `x-forwarded-proto`
pub const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const EXTERNAL_ADDRESS: HeaderName = HeaderName::from_static("x-envoy-external-address");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Headers only the gateway itself may set; a client's are removed.
const RESERVED: &[&str] = &[
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-max-retries",
    "x-envoy-retry-on",
    "x-envoy-retry-grpc-on",
    "x-envoy-retriable-header-names",
    "x-envoy-retriable-status-codes",
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-upstream-alt-stat-name",
    "x-envoy-upstream-rq-timeout-alt-response",
    "x-envoy-hedge-on-per-try-timeout",
    "x-envoy-original-path",
    "x-envoy-original-host",
    "x-envoy-internal",
    "x-envoy-decorator-operation",
    "x-envoy-attempt-count",
];

/// Removes the headers that are about one connection, those `connection` names included. `te: trailers` stays, since
/// gRPC needs it end to end.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().to_ascii_lowercase().parse().ok())
            // These decide where a message goes and how long it is; no peer may have them removed.
            .filter(|name: &HeaderName| {
                *name != HOST && *name != TE && !name.as_str().starts_with("x-forwarded")
            })
            .collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    for name in [KEEP_ALIVE, PROXY_CONNECTION, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
    if headers.get(TE).is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"trailers")) {
        headers.remove(TE);
    }
}

/// The upgrade an HTTP/1.1 request asks for, in lower case.
pub fn wanted_upgrade(version: Version, headers: &HeaderMap) -> Option<String> {
    if version != Version::HTTP_11 {
        return None;
    }
    let names_upgrade =
        headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok()).any(|value| {
            value.split(',').any(|token| token.trim().eq_ignore_ascii_case("upgrade"))
        });
    let upgrade = headers.get(UPGRADE)?.to_str().ok()?;
    names_upgrade.then(|| upgrade.to_ascii_lowercase())
}

/// Sets the headers that tell the upstream about the client, and removes those a client must not set.
pub fn prepare(hcm: &Hcm, connection: &ConnectionInfo, headers: &mut HeaderMap) {
    for name in RESERVED {
        headers.remove(*name);
    }
    let client = client_address(hcm, connection, headers);
    if hcm.use_remote_address {
        if let Some(remote) = connection.remote.map(|address| address.ip()) {
            append_forwarded(headers, remote);
        }
        headers.remove(EXTERNAL_ADDRESS);
        if let Some(client) =
            client.filter(|ip| !is_internal(*ip)).and_then(|ip| ip.to_string().parse().ok())
        {
            headers.insert(EXTERNAL_ADDRESS, client);
        }
        if hcm.xff_trusted_hops == 0 {
            headers.insert(FORWARDED_PROTO, HeaderValue::from_static(connection.scheme));
        }
    }
    if !headers.contains_key(FORWARDED_PROTO) {
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static(connection.scheme));
    }
    let keep = !hcm.use_remote_address || hcm.preserve_request_id;
    if hcm.generate_request_id && !(keep && headers.contains_key(REQUEST_ID)) {
        headers.insert(REQUEST_ID, request_id());
    }
}

/// The client's address: the connection's peer, or what trusted proxies in front say.
fn client_address(hcm: &Hcm, connection: &ConnectionInfo, headers: &HeaderMap) -> Option<IpAddr> {
    let peer = connection.remote.map(|address| address.ip());
    if hcm.xff_trusted_hops == 0 {
        return peer;
    }
    let values = headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
    let hops: Vec<&str> = values.flat_map(|value| value.split(',')).map(str::trim).collect();
    let index = hops.len().checked_sub(hcm.xff_trusted_hops as usize);
    index.and_then(|index| hops[index].parse().ok()).or(peer)
}

fn append_forwarded(headers: &mut HeaderMap, remote: IpAddr) {
    let before: Vec<&str> =
        headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok()).collect();
    let text = if before.is_empty() {
        remote.to_string()
    } else {
        format!("{},{remote}", before.join(","))
    };
    if let Ok(value) = text.parse() {
        headers.insert(FORWARDED_FOR, value);
    }
}

/// Loopback and private ranges (RFC 1918, RFC 4193).
fn is_internal(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local(),
    }
}

/// A version 4 UUID.
fn request_id() -> HeaderValue {
    let mut bytes: [u8; 16] = rand::rng().random();
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut text = [b'-'; 36];
    let mut at = 0;
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            at += 1;
        }
        text[at] = HEX[usize::from(byte >> 4)];
        text[at + 1] = HEX[usize::from(byte & 15)];
        at += 2;
    }
    HeaderValue::from_bytes(&text).expect("hexadecimal digits and dashes")
}

/// Host and port the request is for: the URI's authority, else the `host` header.
pub fn authority(parts: &request::Parts) -> Option<HeaderValue> {
    match parts.uri.authority() {
        Some(authority) => HeaderValue::from_str(authority.as_str()).ok(),
        None => parts.headers.get(HOST).cloned(),
    }
}

/// Puts `parts` into the form the upstream protocol wants: HTTP/1.1 has a path and a `host` header, HTTP/2 an absolute
/// URI and none.
pub fn shape(
    parts: &mut request::Parts,
    http2: bool,
    authority: &HeaderValue,
    scheme: &'static str,
) -> Option<()> {
    let path =
        parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    if http2 {
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(if scheme == "https" { Scheme::HTTPS } else { Scheme::HTTP });
        uri.authority = Some(
            Authority::from_maybe_shared(bytes::Bytes::copy_from_slice(authority.as_bytes()))
                .ok()?,
        );
        uri.path_and_query = Some(path);
        parts.uri = Uri::from_parts(uri).ok()?;
        parts.headers.remove(HOST);
        parts.version = Version::HTTP_2;
    } else {
        parts.uri = Uri::from(path);
        parts.headers.insert(HOST, authority.clone());
        parts.version = Version::HTTP_11;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_headers_are_removed() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, x-secret, host"),
            ("x-secret", "1"),
            ("keep-alive", "5"),
            ("te", "gzip"),
            ("host", "h"),
            ("transfer-encoding", "chunked"),
            ("accept", "*/*"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        strip_hop_by_hop(&mut headers);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "host"]);
        headers.insert("te", HeaderValue::from_static("trailers"));
        strip_hop_by_hop(&mut headers);
        assert!(headers.contains_key("te"));
    }

    #[test]
    fn request_ids_are_random_uuids() {
        let (a, b) = (request_id(), request_id());
        assert_ne!(a, b);
        let text = a.to_str().unwrap();
        assert_eq!((text.len(), &text[14..15], &text[8..9]), (36, "4", "-"));
    }
}

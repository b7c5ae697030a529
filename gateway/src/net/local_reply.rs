//! Answers the gateway gives itself, worded as Envoy's.

use std::time::SystemTime;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, DATE, HeaderName, HeaderValue, SERVER};
use http::{Response, StatusCode};

use super::response::ResponseBody;
use super::stream::Stream;
use crate::access_log::Flags;
use crate::engine::retry::Failure;

/// `x-envoy-overloaded`
pub const OVERLOADED: HeaderName = HeaderName::from_static("x-envoy-overloaded");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// An answer that ends the stream. gRPC calls get it as a status in the headers of a 200.
pub fn reply(
    mut stream: Box<Stream>,
    status: StatusCode,
    body: impl Into<Bytes>,
    flags: Flags,
    grpc: bool,
) -> Response<ResponseBody> {
    let body = body.into();
    stream.flags.set(flags);
    stream.complete = true;
    let server = stream.hcm.server_name.clone();
    let mut response = if grpc {
        stream.code = 200;
        let message = grpc_message(&body);
        let mut response = Response::new(ResponseBody::own(Bytes::new(), stream));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(GRPC_STATUS, HeaderValue::from(grpc_status(status)));
        if let Some(message) = message {
            headers.insert(GRPC_MESSAGE, message);
        }
        response
    } else {
        stream.code = status.as_u16();
        let length = body.len();
        let mut response = Response::new(ResponseBody::own(body, stream));
        *response.status_mut() = status;
        if length > 0 {
            response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        }
        response
    };
    response.headers_mut().insert(DATE, date());
    response.headers_mut().insert(SERVER, server);
    response
}

/// The `date` header, now.
pub fn date() -> HeaderValue {
    HeaderValue::from_str(&httpdate::fmt_http_date(SystemTime::now()))
        .expect("a date is a header value")
}

/// Status, body and flags for a request that got no response.
pub fn failure(failure: Failure, retried: bool) -> (StatusCode, String, Flags) {
    let (reason, flags) = match failure {
        Failure::Connect => ("remote connection failure", Flags::UPSTREAM_CONNECTION_FAILURE),
        Failure::Terminated => ("connection termination", Flags::UPSTREAM_TERMINATION),
        Failure::Reset => ("remote reset", Flags::UPSTREAM_RESET),
        Failure::Refused => ("remote refused stream reset", Flags::UPSTREAM_RESET),
        Failure::Overflow => ("overflow", Flags::UPSTREAM_OVERFLOW),
        Failure::PerTryTimeout | Failure::Status(_) | Failure::Grpc(_) => {
            return (
                StatusCode::GATEWAY_TIMEOUT,
                "upstream request timeout".to_owned(),
                Flags::UPSTREAM_TIMEOUT,
            );
        }
    };
    let latest = if retried { "retried and the latest reset reason" } else { "reset reason" };
    let body =
        format!("upstream connect error or disconnect/reset before headers. {latest}: {reason}");
    (StatusCode::SERVICE_UNAVAILABLE, body, flags)
}

/// The gRPC status for an HTTP status, from gRPC's http-grpc-status-mapping.
fn grpc_status(status: StatusCode) -> u16 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

/// Percent-encodes what gRPC does not allow in `grpc-message`.
fn grpc_message(body: &[u8]) -> Option<HeaderValue> {
    if body.is_empty() {
        return None;
    }
    let mut text = String::with_capacity(body.len());
    for byte in body {
        match byte {
            b'%' | 0..0x20 | 0x7f.. => text.push_str(&format!("%{byte:02X}")),
            byte => text.push(char::from(*byte)),
        }
    }
    HeaderValue::from_str(&text).ok()
}

//! JSON over HTTP for every call, under etcd's paths.
//!
//! A request's JSON is read with the schema, sent to the gRPC service in the same process, and the answer written
//! back: field names as in the schema, 64-bit numbers as strings, bytes in base64, streams as one
//! `{"result":…}` a line. The services see the caller's token as they do from gRPC.

mod convert;
mod paths;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures::StreamExt;
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::api::gateway::convert::{Call, frame, frames};
use crate::api::gateway::paths::PATHS;

/// The gateway in front of a router of gRPC services. Bodies may have `limit` bytes.
pub fn router(grpc: Router, limit: usize) -> Router {
    let mut router = Router::new();
    for (path, method) in PATHS {
        let Some(call) = Call::find(method) else {
            // The table is checked by a test.
            tracing::error!(path, method, "the schema has no such call");
            continue;
        };
        let handler = move |State(grpc): State<Router>, headers: HeaderMap, body: Body| {
            let call = call.clone();
            async move {
                answer(grpc, call, headers, body, limit)
                    .await
                    .unwrap_or_else(|status| refused(&status))
            }
        };
        router = router.route(path, post(handler));
    }
    router.with_state(grpc)
}

async fn answer(
    grpc: Router,
    call: Call,
    headers: HeaderMap,
    body: Body,
    limit: usize,
) -> Result<Response, Status> {
    // Base64 takes a third more than what it carries.
    let body = axum::body::to_bytes(body, limit.saturating_mul(2))
        .await
        .map_err(|_| Status::invalid_argument("etcdserver: request is too large"))?;
    let message = call.request(&body)?;
    let mut request = axum::http::Request::post(&call.path)
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers");
    for name in ["authorization", "token", "grpc-metadata-token"] {
        if let Some(value) = headers.get(name) {
            request = request.header(name.trim_start_matches("grpc-metadata-"), value);
        }
    }
    let request = request
        .version(axum::http::Version::HTTP_2)
        .body(Body::from(frame(&message)))
        .map_err(|error| Status::invalid_argument(error.to_string()))?;
    let response = tower::ServiceExt::oneshot(grpc, request)
        .await
        .map_err(|_| Status::internal("the service does not answer"))?;
    if let Some(status) =
        Status::from_header_map(response.headers()).filter(|status| status.code() != Code::Ok)
    {
        return Err(status);
    }
    if call.streams {
        Ok(stream(call, response.into_body()))
    } else {
        unary(&call, response.into_body()).await
    }
}

async fn unary(call: &Call, body: Body) -> Result<Response, Status> {
    let mut messages = std::pin::pin!(frames(body));
    let message = match messages.next().await {
        Some(message) => message?,
        None => return Err(Status::internal("the service sent no answer")),
    };
    Ok(json_response(StatusCode::OK, &call.response(message)?))
}

fn stream(call: Call, body: Body) -> Response {
    let lines = frames(body).map(move |message| {
        let line = match message.and_then(|message| call.response(message)) {
            Ok(result) => json!({ "result": result }),
            Err(status) => json!({ "error": error_json(&status) }),
        };
        Ok::<_, std::convert::Infallible>(Bytes::from(format!("{line}\n")))
    });
    ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(lines)).into_response()
}

fn error_json(status: &Status) -> Value {
    json!({ "code": status.code() as i32, "message": status.message(), "details": [] })
}

fn refused(status: &Status) -> Response {
    let mut body = error_json(status);
    body["error"] = json!(status.message());
    json_response(http_code(status.code()), &body)
}

fn json_response(code: StatusCode, body: &Value) -> Response {
    (code, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

fn http_code(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => {
            StatusCode::BAD_REQUEST
        }
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

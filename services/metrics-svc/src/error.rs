//! Failures of the HTTP API, with Prometheus' error types and status codes.

use axum::http::StatusCode;
use metrics_promql::EvalError;
use thiserror::Error;

/// What an API call answers instead of data.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("{message}")]
pub struct ApiError {
    /// `bad_data`, `execution`, ...
    pub kind: &'static str,
    /// What went wrong.
    pub message: String,
}

impl ApiError {
    /// A request that makes no sense.
    pub fn bad_data(message: impl Into<String>) -> Self {
        Self { kind: "bad_data", message: message.into() }
    }

    /// A parameter that makes no sense.
    pub fn parameter(name: &str, reason: impl std::fmt::Display) -> Self {
        Self::bad_data(format!("invalid parameter {name:?}: {reason}"))
    }

    /// A failure of the server.
    pub fn internal(error: impl std::fmt::Display) -> Self {
        Self { kind: "internal", message: error.to_string() }
    }

    /// Something that is switched off or not ready.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self { kind: "unavailable", message: message.into() }
    }

    /// The status code that goes with the kind.
    pub fn status(&self) -> StatusCode {
        match self.kind {
            "bad_data" => StatusCode::BAD_REQUEST,
            "execution" => StatusCode::UNPROCESSABLE_ENTITY,
            "timeout" | "canceled" | "unavailable" => StatusCode::SERVICE_UNAVAILABLE,
            "not_found" => StatusCode::NOT_FOUND,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The same as a gRPC status.
    pub fn to_grpc(&self) -> tonic::Status {
        let code = match self.kind {
            "bad_data" => tonic::Code::InvalidArgument,
            "execution" => tonic::Code::FailedPrecondition,
            "timeout" => tonic::Code::DeadlineExceeded,
            "canceled" => tonic::Code::Cancelled,
            "unavailable" => tonic::Code::Unavailable,
            "not_found" => tonic::Code::NotFound,
            _ => tonic::Code::Internal,
        };
        tonic::Status::new(code, self.message.clone())
    }
}

impl From<EvalError> for ApiError {
    fn from(error: EvalError) -> Self {
        let kind = match error {
            EvalError::Timeout => "timeout",
            EvalError::Canceled => "canceled",
            EvalError::Storage(_) => "internal",
            EvalError::Execution(_) | EvalError::TooManySamples => "execution",
        };
        Self { kind, message: error.to_string() }
    }
}

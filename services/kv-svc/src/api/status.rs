//! Errors as gRPC statuses.

use tonic::Status;

use crate::error::{Code, KvError};

/// The status of an error.
pub fn status(error: KvError) -> Status {
    Status::new(code(error.code()), error.text())
}

/// Bytes a client may send beyond the limit of a request, for what surrounds it.
pub const OVERHEAD: usize = 512 << 10;

/// Refuses a message that gRPC servers of etcd would not receive.
///
/// # Errors
/// When it is larger than `limit` and the overhead.
pub fn receivable(message: &impl prost::Message, limit: usize) -> Result<(), Status> {
    let (size, max) = (message.encoded_len(), limit + OVERHEAD);
    if size <= max {
        return Ok(());
    }
    Err(Status::resource_exhausted(format!(
        "grpc: received message larger than max ({size} vs. {max})"
    )))
}

fn code(code: Code) -> tonic::Code {
    match code {
        Code::Canceled => tonic::Code::Cancelled,
        Code::InvalidArgument => tonic::Code::InvalidArgument,
        Code::DeadlineExceeded => tonic::Code::DeadlineExceeded,
        Code::NotFound => tonic::Code::NotFound,
        Code::PermissionDenied => tonic::Code::PermissionDenied,
        Code::ResourceExhausted => tonic::Code::ResourceExhausted,
        Code::FailedPrecondition => tonic::Code::FailedPrecondition,
        Code::OutOfRange => tonic::Code::OutOfRange,
        Code::Unimplemented => tonic::Code::Unimplemented,
        Code::Internal => tonic::Code::Internal,
        Code::Unavailable => tonic::Code::Unavailable,
        Code::DataLoss => tonic::Code::DataLoss,
        Code::Unauthenticated => tonic::Code::Unauthenticated,
        Code::Unknown => tonic::Code::Unknown,
    }
}

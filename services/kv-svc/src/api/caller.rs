//! Who calls, by the token in the request's metadata.

use tonic::metadata::MetadataMap;
use tonic::{Request, Status};

use crate::api::status::status;
use crate::engine::auth::Caller;
use crate::engine::server::Server;

fn token(metadata: &MetadataMap) -> Option<&str> {
    let value = metadata.get("token").or_else(|| metadata.get("authorization"))?;
    let value = value.to_str().ok()?;
    Some(value.strip_prefix("Bearer ").unwrap_or(value))
}

/// The caller of a request.
///
/// # Errors
/// When its token is not known.
pub fn caller<T>(server: &Server, request: &Request<T>) -> Result<Caller, Status> {
    server.recognise(token(request.metadata())).map_err(status)
}

/// The caller of a request that only root may send.
///
/// # Errors
/// When the caller is somebody else.
pub fn admin<T>(server: &Server, request: &Request<T>) -> Result<Caller, Status> {
    let caller = caller(server, request)?;
    server.admin(&caller).map_err(status)?;
    Ok(caller)
}

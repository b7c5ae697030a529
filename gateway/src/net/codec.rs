//! The client side of a connection: one request out, one response in. HTTP/1.1 and HTTP/2 behind one trait, so that
//! nothing else depends on the library that frames them.

use std::future::Future;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};

use super::body::RequestBody;
use crate::engine::retry::Failure;

/// A request that got no response.
#[derive(Debug)]
pub struct SendError {
    /// The request, when it was certainly not sent.
    pub unsent: Option<Request<RequestBody>>,
    /// What happened.
    pub failure: Failure,
}

/// A connection that can take a request.
pub trait Codec: Send {
    /// Sends `request` and waits for the response's headers.
    fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> impl Future<Output = Result<Response<Incoming>, SendError>> + Send;
}

/// HTTP/1.1: one request at a time.
pub type Http1 = http1::SendRequest<RequestBody>;
/// HTTP/2: many at once; clones share the connection.
pub type Http2 = http2::SendRequest<RequestBody>;

impl Codec for Http1 {
    async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, SendError> {
        self.try_send_request(request).await.map_err(|mut error| {
            let unsent = error.take_message();
            SendError { unsent, failure: classify(&error.into_error()) }
        })
    }
}

impl Codec for Http2 {
    async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, SendError> {
        self.try_send_request(request).await.map_err(|mut error| {
            let unsent = error.take_message();
            SendError { unsent, failure: classify(&error.into_error()) }
        })
    }
}

/// Tells a refused stream from a reset one and from a lost connection.
fn classify(error: &hyper::Error) -> Failure {
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if let Some(h2) = inner.downcast_ref::<h2::Error>() {
            return match h2.reason() {
                Some(h2::Reason::REFUSED_STREAM) => Failure::Refused,
                // The peer says with GOAWAY which streams it did not look at; this is one of them.
                _ if h2.is_go_away() && h2.is_remote() => Failure::Refused,
                _ if h2.is_reset() => Failure::Reset,
                _ => Failure::Terminated,
            };
        }
        source = inner.source();
    }
    Failure::Terminated
}

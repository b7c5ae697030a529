//! gRPC channels to other services.
//!
//! Every channel pings its peer: a connection that a partition left half open is noticed within seconds and
//! made anew, instead of hanging until the kernel gives up. Channels connect lazily, so a service starts
//! whether or not its neighbours do.

use std::path::PathBuf;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

/// Why a channel could not be made.
#[derive(Debug, Error)]
#[error("{endpoint:?} is no gRPC endpoint: write http://HOST:PORT or unix:///path")]
pub struct EndpointError {
    endpoint: String,
}

/// A lazily connected channel to one endpoint: `http://HOST:PORT`, `HOST:PORT`, or `unix:///path`.
///
/// # Errors
/// When the text is no endpoint.
pub fn channel(endpoint: &str) -> Result<Channel, EndpointError> {
    let fail = || EndpointError { endpoint: endpoint.to_owned() };
    if let Some(path) = endpoint.strip_prefix("unix://").or_else(|| endpoint.strip_prefix("unix:"))
    {
        if path.is_empty() {
            return Err(fail());
        }
        // The authority is never resolved: the connector below ignores it.
        let configured = configure(Endpoint::from_static("http://localhost"));
        return Ok(configured.connect_with_connector_lazy(unix_connector(path.into())));
    }
    tcp_endpoint(endpoint).map(|endpoint| endpoint.connect_lazy())
}

/// A channel that spreads calls over several TCP endpoints and leaves out those that do not answer.
///
/// # Errors
/// When the list is empty or one of the texts is no TCP endpoint.
pub fn balanced_channel(endpoints: &[String]) -> Result<Channel, EndpointError> {
    match endpoints {
        [] => Err(EndpointError { endpoint: String::new() }),
        [one] => channel(one),
        many => {
            let list: Result<Vec<Endpoint>, _> =
                many.iter().map(|text| tcp_endpoint(text)).collect();
            Ok(Channel::balance_list(list?.into_iter()))
        }
    }
}

fn tcp_endpoint(text: &str) -> Result<Endpoint, EndpointError> {
    let with_scheme = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let fail = || EndpointError { endpoint: text.to_owned() };
    let uri: Uri = with_scheme.parse().map_err(|_| fail())?;
    if uri.host().is_none() || uri.scheme_str() != Some("http") {
        return Err(fail());
    }
    Ok(configure(Endpoint::from(uri)))
}

fn configure(endpoint: Endpoint) -> Endpoint {
    endpoint
        .connect_timeout(Duration::from_secs(5))
        .tcp_nodelay(true)
        .tcp_keepalive(Some(Duration::from_secs(15)))
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(5))
        .keep_alive_while_idle(true)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
}

fn unix_connector(
    path: PathBuf,
) -> impl tower::Service<Uri, Response = TokioIo<UnixStream>, Error = std::io::Error, Future: Send>
+ Clone
+ Send {
    tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn spellings_are_checked() {
        for good in ["http://127.0.0.1:2379", "127.0.0.1:2379", "unix:///run/x.sock"] {
            assert!(channel(good).is_ok(), "{good}");
        }
        for bad in ["", "unix://", "ftp://x:1", "http://"] {
            assert!(channel(bad).is_err(), "{bad:?}");
        }
    }
}

//! Dialling endpoints.

use std::io;
use std::time::Duration;

use flotilla_server::Connection;
use tokio::net::{TcpStream, UnixStream};

use super::address::Address;
use super::tls::UpstreamTls;

/// Why no connection was made.
#[derive(Debug)]
pub enum DialError {
    /// Nothing answered in time.
    Timeout,
    /// The system or the TLS handshake refused.
    Refused(io::Error),
}

/// Connects to `address` within `limit`, TLS handshake included.
///
/// # Errors
/// When the endpoint does not answer or refuses.
pub async fn dial(
    address: &Address,
    tls: Option<&UpstreamTls>,
    limit: Duration,
) -> Result<Box<dyn Connection>, DialError> {
    let attempt = async {
        let stream: Box<dyn Connection> = match address {
            Address::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
            Address::Name(name, port) => {
                let stream = TcpStream::connect((name.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
            Address::Unix(path) => Box::new(UnixStream::connect(path).await?),
        };
        match tls {
            None => Ok(stream),
            Some(tls) => {
                let (connector, name) = tls.parts(address);
                Ok(Box::new(connector.connect(name, stream).await?) as Box<dyn Connection>)
            }
        }
    };
    match tokio::time::timeout(limit, attempt).await {
        Ok(result) => result.map_err(DialError::Refused),
        Err(_) => Err(DialError::Timeout),
    }
}

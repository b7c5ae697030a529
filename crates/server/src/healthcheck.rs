//! The `healthcheck` subcommand: one plain HTTP request, for images that hold no shell and no curl.

use std::net::SocketAddr;
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Why a process does not count as healthy.
#[derive(Debug, Error)]
pub enum HealthcheckError {
    /// Nothing answered.
    #[error("http://{address}{path} does not answer: {reason}")]
    Silent {
        /// Who was asked.
        address: SocketAddr,
        /// The page.
        path: String,
        /// The system's error or the time-out.
        reason: String,
    },
    /// It answered, but not with 200.
    #[error("http://{address}{path} answered {status}")]
    Unhealthy {
        /// Who was asked.
        address: SocketAddr,
        /// The page.
        path: String,
        /// The status line.
        status: String,
    },
}

/// Asks `http://address/path` and accepts nothing but status 200 within `timeout`.
///
/// # Errors
/// When nothing answers in time or the status is another.
pub async fn http_healthcheck(
    address: SocketAddr,
    path: &str,
    timeout: Duration,
) -> Result<(), HealthcheckError> {
    let silent =
        |reason: String| HealthcheckError::Silent { address, path: path.to_owned(), reason };
    let head = tokio::time::timeout(timeout, request(address, path))
        .await
        .map_err(|_| silent(format!("no answer within {timeout:?}")))?
        .map_err(|error| silent(error.to_string()))?;
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) == Some("200") {
        return Ok(());
    }
    Err(HealthcheckError::Unhealthy { address, path: path.to_owned(), status: status.to_owned() })
}

async fn request(address: SocketAddr, path: &str) -> std::io::Result<String> {
    const ENOUGH_FOR_A_STATUS_LINE: u64 = 512;
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    stream.take(ENOUGH_FOR_A_STATUS_LINE).read_to_end(&mut head).await?;
    Ok(String::from_utf8_lossy(&head).into_owned())
}

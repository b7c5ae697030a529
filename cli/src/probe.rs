//! Asking a service whether it is ready.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const LIMIT: Duration = Duration::from_secs(2);

/// Whether `http://HOST:PORT/PATH` answers with one of the wanted status codes.
pub async fn answers(url: &str, wanted: &[u16]) -> bool {
    let Some(rest) = url.strip_prefix("http://") else { return false };
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let Ok(address) = host.parse::<SocketAddr>() else { return false };
    let status = tokio::time::timeout(LIMIT, status_of(address, path)).await;
    matches!(status, Ok(Some(code)) if wanted.contains(&code))
}

async fn status_of(address: SocketAddr, path: &str) -> Option<u16> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let request = format!("GET /{path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut head = [0; 64];
    let mut have = 0;
    while have < 12 {
        match stream.read(&mut head[have..]).await.ok()? {
            0 => return None,
            count => have += count,
        }
    }
    std::str::from_utf8(&head[9..12]).ok()?.parse().ok()
}

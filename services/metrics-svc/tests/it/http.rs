//! A client for tests: one request per connection, HTTP/1.0 so that nothing is chunked.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// Status, head and body.
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body)
            .unwrap_or_else(|e| panic!("{e}: {} {}", self.head, self.body))
    }
}

pub fn try_request(
    address: SocketAddr,
    method: &str,
    path: &str,
    form: &str,
) -> std::io::Result<Reply> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let kind =
        if form.is_empty() { "" } else { "Content-Type: application/x-www-form-urlencoded\r\n" };
    let length = form.len();
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: {address}\r\n{kind}Content-Length: {length}\r\n\r\n{form}"
    )?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or_default();
    Ok(Reply { status, head: head.to_owned(), body: body.to_owned() })
}

pub fn request(address: SocketAddr, method: &str, path: &str, form: &str) -> Reply {
    try_request(address, method, path, form).unwrap_or_else(|e| panic!("{method} {path}: {e}"))
}

pub fn get(address: SocketAddr, path: &str) -> Reply {
    request(address, "GET", path, "")
}

/// Percent-encodes everything that is not plain.
pub fn encode(text: &str) -> String {
    text.bytes()
        .map(|b| {
            if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") }
        })
        .collect()
}

//! Just enough HTTP/1.1: GET with keep-alive, one thread a connection, a bound on connections and head size.

use std::io::{BufRead, BufReader, Read, Result, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::app::App;

const MAX_CONNECTIONS: usize = 512;
const MAX_HEAD: u64 = 16 << 10;
const IDLE: Duration = Duration::from_secs(60);

/// Serves connections for as long as the process lives.
pub fn serve(listener: &TcpListener, app: &Arc<App>) {
    let open = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        if open.fetch_add(1, Ordering::SeqCst) >= MAX_CONNECTIONS {
            open.fetch_sub(1, Ordering::SeqCst);
            continue;
        }
        let (app, open) = (app.clone(), open.clone());
        std::thread::spawn(move || {
            // A client that breaks off hurts only itself.
            let _ = connection(&stream, &app);
            open.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

fn connection(stream: &TcpStream, app: &App) -> Result<()> {
    stream.set_read_timeout(Some(IDLE))?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    while let Some((path, keep)) = request(&mut reader)? {
        let answer = app.answer(&path);
        let close = !keep || app.is_draining();
        write!(
            writer,
            "HTTP/1.1 {}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n{}\r\n{}",
            answer.status,
            answer.body.len(),
            if close { "Connection: close\r\n" } else { "" },
            answer.body
        )?;
        if close {
            break;
        }
    }
    Ok(())
}

/// Path of the next request and whether the client keeps the connection; `None` at the end of the stream.
fn request(reader: &mut impl BufRead) -> Result<Option<(String, bool)>> {
    let mut head = reader.take(MAX_HEAD);
    let mut line = String::new();
    if head.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (Some(_method), Some(target)) = (words.next(), words.next()) else { return Ok(None) };
    let path = target.split('?').next().unwrap_or_default().to_owned();
    let mut keep = words.next() == Some("HTTP/1.1");
    loop {
        let mut header = String::new();
        if head.read_line(&mut header)? == 0 {
            return Ok(None);
        }
        if header.trim().is_empty() {
            return Ok(Some((path, keep)));
        }
        if header.to_ascii_lowercase().starts_with("connection: close") {
            keep = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_one_after_the_other() {
        let text =
            "GET /ready?x=1 HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nConnection: close\r\n\r\n";
        let mut reader = text.as_bytes();
        assert_eq!(request(&mut reader).unwrap(), Some(("/ready".to_owned(), true)));
        assert_eq!(request(&mut reader).unwrap(), Some(("/".to_owned(), false)));
        assert_eq!(request(&mut reader).unwrap(), None);
    }

    #[test]
    fn endless_head_is_cut() {
        let mut endless = std::io::repeat(b'a');
        let mut reader = BufReader::new(&mut endless);
        assert_eq!(request(&mut reader).unwrap(), None);
    }
}

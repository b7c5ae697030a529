//! A fake target whose page a test can change.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What the target answers.
#[derive(Clone)]
pub struct Page {
    pub body: String,
    pub content_type: String,
    /// Pause before the answer.
    pub delay: Duration,
    pub status: u16,
}

impl Default for Page {
    fn default() -> Self {
        Self {
            body: String::new(),
            content_type: "text/plain; version=0.0.4".to_owned(),
            delay: Duration::ZERO,
            status: 200,
        }
    }
}

/// The target; it answers until the test process ends.
pub struct Target {
    pub address: SocketAddr,
    page: Arc<Mutex<Page>>,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Target {
    pub fn start(body: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let page = Arc::new(Mutex::new(Page { body: body.to_owned(), ..Page::default() }));
        let heads = Arc::new(Mutex::new(Vec::new()));
        let (served, seen) = (page.clone(), heads.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (served, seen) = (served.clone(), seen.clone());
                std::thread::spawn(move || answer(stream, &served, &seen));
            }
        });
        Self { address, page, heads }
    }

    pub fn set(&self, page: Page) {
        *self.page.lock().unwrap() = page;
    }

    pub fn set_body(&self, body: &str) {
        self.page.lock().unwrap().body = body.to_owned();
    }

    /// Heads of the requests so far.
    pub fn requests(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

fn answer(mut stream: std::net::TcpStream, page: &Mutex<Page>, heads: &Mutex<Vec<String>>) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return,
        }
    }
    heads.lock().unwrap().push(String::from_utf8_lossy(&head).into_owned());
    let page = page.lock().unwrap().clone();
    std::thread::sleep(page.delay);
    let kind = if page.content_type.is_empty() {
        String::new()
    } else {
        format!("Content-Type: {}\r\n", page.content_type)
    };
    let reply = format!(
        "HTTP/1.1 {} X\r\n{kind}Content-Length: {}\r\nConnection: close\r\n\r\n{}",
        page.status,
        page.body.len(),
        page.body
    );
    // The server may have given up.
    let _ = stream.write_all(reply.as_bytes());
}

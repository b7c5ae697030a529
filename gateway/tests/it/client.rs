//! A small HTTP client: one connection per call, HTTP/1.1 or HTTP/2 with prior knowledge.

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

/// A response read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

pub async fn read(response: http::Response<Incoming>) -> Result<Answer, hyper::Error> {
    let (parts, body) = response.into_parts();
    let collected = body.collect().await?;
    let trailers = collected.trailers().cloned();
    let body = String::from_utf8_lossy(&collected.to_bytes()).into_owned();
    Ok(Answer { status: parts.status, headers: parts.headers, body, trailers })
}

pub async fn http1(port: u16) -> hyper::client::conn::http1::SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (sender, driver) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(driver.with_upgrades());
    sender
}

pub async fn http2<B>(port: u16) -> hyper::client::conn::http2::SendRequest<B>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (sender, driver) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(driver);
    sender
}

pub fn request(
    method: &str,
    port: u16,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri(path);
    if !headers.iter().any(|(name, _)| *name == "host") {
        request = request.header("host", format!("127.0.0.1:{port}"));
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).unwrap()
}

/// GET over a fresh HTTP/1.1 connection.
pub async fn get(port: u16, path: &str, headers: &[(&str, &str)]) -> Answer {
    let response =
        http1(port).await.send_request(request("GET", port, path, headers, "")).await.unwrap();
    read(response).await.unwrap()
}

/// Any method over a fresh HTTP/1.1 connection.
pub async fn send(
    method: &str,
    port: u16,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let response =
        http1(port).await.send_request(request(method, port, path, headers, body)).await.unwrap();
    read(response).await.unwrap()
}

/// Any method over a fresh HTTP/2 connection.
pub async fn send2(
    method: &str,
    port: u16,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let mut request = request(method, port, path, headers, body);
    request.headers_mut().remove("host");
    *request.uri_mut() = format!("http://127.0.0.1:{port}{path}").parse().unwrap();
    let response = http2(port).await.send_request(request).await.unwrap();
    read(response).await.unwrap()
}

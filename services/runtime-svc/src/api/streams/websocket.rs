//! Remote commands and port forwarding over WebSocket.
//!
//! Channels of a remote command are the first byte of a message: 0 stdin, 1 stdout, 2 stderr, 3 error, 4 resize;
//! with v5, 255 closes the channel named by the next byte. The error channel carries a `metav1.Status` at the end.
//! Port forwarding uses a data and an error channel for each port, each of which begins with the port number.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::Response;
use base64::Engine;
use futures::{SinkExt, StreamExt};
use hyper_util::rt::TokioIo;
use rt_shim::wire::{Answer, Kind, read_frame, write_frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};

use super::server::refuse;
use super::sessions::Session;
use crate::engine::node::Node;

const V5: &str = "v5.channel.k8s.io";
const V4: &str = "v4.channel.k8s.io";
const V4_BASE64: &str = "v4.base64.channel.k8s.io";
const COMMAND_PROTOCOLS: &[&str] = &[V5, V4, V4_BASE64, "channel.k8s.io", "base64.channel.k8s.io"];
const FORWARD_PROTOCOLS: &[&str] = &[V4, V4_BASE64];

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// Longest message a client may send.
const MAX_MESSAGE: usize = 4 << 20;

type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

/// What was agreed on.
#[derive(Debug, Clone, Copy)]
struct Protocol {
    /// With the CLOSE signal.
    v5: bool,
    /// With a `metav1.Status` on the error channel.
    structured: bool,
    base64: bool,
}

/// Answers the upgrade and starts the session, or says why not.
#[allow(clippy::result_large_err, reason = "the refusal is the response itself")]
pub(super) fn accept(
    node: Arc<Node>,
    session: Session,
    idle: Duration,
    mut request: Request,
) -> Result<Response, Response> {
    let headers = request.headers();
    let text = |name: header::HeaderName| {
        headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    };
    if !text(header::UPGRADE).eq_ignore_ascii_case("websocket")
        || text(header::SEC_WEBSOCKET_VERSION) != "13"
    {
        return Err(refuse(StatusCode::BAD_REQUEST, "only websocket version 13 is spoken here"));
    }
    let key = text(header::SEC_WEBSOCKET_KEY);
    if key.is_empty() {
        return Err(refuse(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is missing"));
    }
    let forward = matches!(session, Session::PortForward { .. });
    let known = if forward { FORWARD_PROTOCOLS } else { COMMAND_PROTOCOLS };
    let offers = headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let offered: Vec<&str> = offers
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|p| !p.is_empty())
        .collect();
    let chosen = offered.iter().copied().find(|offer| known.contains(offer));
    if chosen.is_none() && !offered.is_empty() {
        let text = format!("no subprotocol of {offered:?} is spoken here; known are {known:?}");
        return Err(refuse(StatusCode::FORBIDDEN, &text));
    }
    let name = chosen.unwrap_or("channel.k8s.io");
    let protocol = Protocol {
        v5: name == V5,
        structured: name.starts_with('v'),
        base64: name.contains("base64"),
    };
    let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes());
    let mut answer = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::UPGRADE, "websocket")
        .header(header::CONNECTION, "Upgrade")
        .header(header::SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(chosen) = chosen {
        answer = answer.header(header::SEC_WEBSOCKET_PROTOCOL, chosen);
    }
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => serve(node, session, protocol, idle, upgraded).await,
            Err(error) => tracing::debug!(%error, "a stream's upgrade failed"),
        }
    });
    answer.body(Body::empty()).map_err(|error| refuse(StatusCode::BAD_REQUEST, &error.to_string()))
}

async fn serve(
    node: Arc<Node>,
    session: Session,
    protocol: Protocol,
    idle: Duration,
    upgraded: hyper::upgrade::Upgraded,
) {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    let socket =
        WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
    match session {
        Session::Exec { container, command, tty, stdin, stdout, stderr } => {
            let stream = node
                .exec(&container, &command, tty, stdin)
                .await
                .map_err(|error| error.to_string());
            command_session(
                socket,
                stream,
                protocol,
                idle,
                Outputs { stdout, stderr, status: true },
            )
            .await;
        }
        Session::Attach { container, stdin, stdout, stderr, .. } => {
            let stream = node.attach(&container, stdin).await.map_err(|error| error.to_string());
            command_session(
                socket,
                stream,
                protocol,
                idle,
                Outputs { stdout, stderr, status: false },
            )
            .await;
        }
        Session::PortForward { sandbox, ports } => {
            forward_session(socket, node, sandbox, ports, protocol, idle).await
        }
    }
}

struct Outputs {
    stdout: bool,
    stderr: bool,
    /// Whether the exit code makes the final status; attach ends with success.
    status: bool,
}

fn message(protocol: Protocol, channel: u8, text: &[u8]) -> Message {
    if protocol.base64 {
        let encoded = base64::engine::general_purpose::STANDARD.encode(text);
        return Message::text(format!("{}{encoded}", char::from(b'0' + channel)));
    }
    Message::binary([&[channel], text].concat())
}

/// Channel and payload of a client's message.
fn parse(protocol: Protocol, message: Message) -> Option<(u8, Vec<u8>)> {
    let bytes = message.into_data();
    let (first, rest) = bytes.split_first()?;
    if !protocol.base64 {
        return Some((*first, rest.to_vec()));
    }
    let decoded = base64::engine::general_purpose::STANDARD.decode(rest).ok()?;
    Some((first.checked_sub(b'0')?, decoded))
}

async fn command_session(
    mut socket: Socket,
    stream: Result<UnixStream, String>,
    protocol: Protocol,
    idle: Duration,
    outputs: Outputs,
) {
    let status = match stream {
        Ok(stream) => pump_command(&mut socket, stream, protocol, idle, &outputs).await,
        Err(error) => Some(failure(&error)),
    };
    if let Some(status) = status {
        let text = if protocol.structured {
            status.to_string()
        } else {
            status["message"].as_str().unwrap_or_default().to_owned()
        };
        if protocol.structured || !text.is_empty() {
            // The client may have left.
            let _ = socket.send(message(protocol, ERROR, text.as_bytes())).await;
        }
    }
    close(&mut socket).await;
}

/// Ends the stream with code 1000; a close frame without a code makes kubectl print an error (RFC 6455 section 7.4.1).
async fn close(
    socket: &mut WebSocketStream<impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>,
) {
    let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    // The client may have left.
    let _ = socket.close(Some(frame)).await;
}

/// Moves frames both ways; returns the final status, or nothing when the client left.
async fn pump_command(
    socket: &mut Socket,
    stream: UnixStream,
    protocol: Protocol,
    idle: Duration,
    outputs: &Outputs,
) -> Option<serde_json::Value> {
    let (mut from, mut to) = stream.into_split();
    loop {
        tokio::select! {
            frame = read_frame(&mut from) => match frame {
                Ok(Some((Kind::Stdout, text))) if outputs.stdout => socket.send(message(protocol, STDOUT, &text)).await.ok()?,
                Ok(Some((Kind::Stderr, text))) if outputs.stderr => socket.send(message(protocol, STDERR, &text)).await.ok()?,
                Ok(Some((Kind::Json, text))) => {
                    if let Ok(Answer::Exited { code }) = serde_json::from_slice(&text) {
                        return Some(exit_status(if outputs.status { code } else { 0 }));
                    }
                }
                Ok(Some(_)) => {}
                Ok(None) => return Some(exit_status(0)),
                Err(error) => return Some(failure(&error.to_string())),
            },
            incoming = tokio::time::timeout(idle, socket.next()) => {
                let incoming = incoming.ok()??.ok()?;
                if incoming.is_close() {
                    return None;
                }
                if !(incoming.is_binary() || incoming.is_text()) {
                    continue;
                }
                let (kind, payload) = match parse(protocol, incoming) {
                    Some((STDIN, text)) if !text.is_empty() => (Kind::Stdin, text),
                    Some((RESIZE, text)) => (Kind::Resize, resize_payload(&text)?),
                    Some((CLOSE, channel)) if protocol.v5 && channel == [STDIN] => (Kind::Stdin, Vec::new()),
                    _ => continue,
                };
                write_frame(&mut to, kind, &payload).await.ok()?;
            }
        }
    }
}

fn resize_payload(text: &[u8]) -> Option<Vec<u8>> {
    let size: serde_json::Value = serde_json::from_slice(text).ok()?;
    let side = |name: &str| size[name].as_u64().and_then(|n| u16::try_from(n).ok());
    Some([side("Width")?.to_le_bytes(), side("Height")?.to_le_bytes()].concat())
}

/// A `metav1.Status` of an ended process.
pub(super) fn exit_status(code: i32) -> serde_json::Value {
    if code == 0 {
        return serde_json::json!({ "metadata": {}, "status": "Success" });
    }
    serde_json::json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("command terminated with non-zero exit code: exit status {code}"),
        "reason": "NonZeroExitCode",
        "details": { "causes": [{ "reason": "ExitCode", "message": code.to_string() }] },
    })
}

/// A `metav1.Status` of something that failed.
pub(super) fn failure(text: &str) -> serde_json::Value {
    serde_json::json!({ "metadata": {}, "status": "Failure", "message": text, "reason": "InternalError", "code": 500 })
}

async fn forward_session(
    mut socket: Socket,
    node: Arc<Node>,
    sandbox: String,
    ports: Vec<u16>,
    protocol: Protocol,
    idle: Duration,
) {
    let (answers, mut outgoing) = mpsc::channel::<Message>(32);
    let mut inputs: Vec<mpsc::Sender<Vec<u8>>> = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        // There are at most 100 ports, so channels fit a byte.
        let Ok(channel) = u8::try_from(index * 2) else { break };
        for channel in [channel, channel + 1] {
            if socket.send(message(protocol, channel, &port.to_le_bytes())).await.is_err() {
                return;
            }
        }
        let (input, chunks) = mpsc::channel(16);
        inputs.push(input);
        tokio::spawn(forward_port(
            node.clone(),
            sandbox.clone(),
            *port,
            channel,
            protocol,
            chunks,
            answers.clone(),
        ));
    }
    drop(answers);
    loop {
        tokio::select! {
            message = outgoing.recv() => {
                let Some(message) = message else { break };
                if socket.send(message).await.is_err() {
                    break;
                }
            }
            incoming = tokio::time::timeout(idle, socket.next()) => {
                let Ok(Some(Ok(incoming))) = incoming else { break };
                if incoming.is_close() {
                    break;
                }
                let Some((channel, text)) = parse(protocol, incoming) else { continue };
                if channel % 2 == 0
                    && let Some(input) = inputs.get(usize::from(channel / 2))
                {
                    // The pod's side may have closed.
                    let _ = input.send(text).await;
                }
            }
        }
    }
    close(&mut socket).await;
}

async fn forward_port(
    node: Arc<Node>,
    sandbox: String,
    port: u16,
    channel: u8,
    protocol: Protocol,
    mut input: mpsc::Receiver<Vec<u8>>,
    answers: mpsc::Sender<Message>,
) {
    let stream = match node.connect(&sandbox, port).await {
        Ok(stream) => stream,
        Err(error) => {
            let _ =
                answers.send(message(protocol, channel + 1, error.to_string().as_bytes())).await;
            return;
        }
    };
    let (mut from, mut to) = stream.into_split();
    let writing = async {
        while let Some(text) = input.recv().await {
            if to.write_all(&text).await.is_err() {
                return;
            }
        }
        // The client left: nothing is left to answer to.
    };
    let reading = async {
        let mut buffer = vec![0; 32 << 10];
        while let Ok(n @ 1..) = from.read(&mut buffer).await {
            if answers.send(message(protocol, channel, &buffer[..n])).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = writing => {}
        () = reading => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_encodings_carry_channels() {
        for base64 in [false, true] {
            let protocol = Protocol { v5: false, structured: true, base64 };
            let sent = message(protocol, STDOUT, b"hi\xff");
            assert_eq!(parse(protocol, sent), Some((STDOUT, b"hi\xff".to_vec())));
        }
        let base64 = Protocol { v5: false, structured: true, base64: true };
        for bad in ["", "0!!!", "\u{1}aGk="] {
            let parsed = parse(base64, Message::text(bad));
            assert!(parsed.is_none(), "{bad:?}: {parsed:?}");
        }
    }

    #[test]
    fn statuses_say_what_clients_look_for() {
        assert_eq!(exit_status(0)["status"], "Success");
        assert_eq!(exit_status(3)["details"]["causes"][0]["message"], "3");
        assert_eq!(resize_payload(br#"{"Width":80,"Height":24}"#).unwrap(), [80, 0, 24, 0]);
        assert!(resize_payload(b"{}").is_none() && resize_payload(b"").is_none());
    }
}

//! The HTTP side: URLs out, upgrades in.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use flotilla_proto::cri::runtime::v1 as cri;

use super::sessions::{Session, Sessions};
use super::websocket;
use crate::engine::error::{Error, Result};
use crate::engine::node::Node;
use crate::engine::records::{ContainerPhase, SandboxPhase};

/// Hands out URLs and serves them. Clones share the waiting requests.
#[derive(Debug, Clone)]
pub struct StreamServer {
    address: SocketAddr,
    sessions: Sessions,
    idle: Duration,
}

#[derive(Clone)]
struct Shared {
    node: Arc<Node>,
    sessions: Sessions,
    idle: Duration,
}

impl StreamServer {
    /// URLs will point to `address`; streams without traffic end after `idle`.
    pub fn new(address: SocketAddr, idle: Duration) -> Self {
        Self { address, sessions: Sessions::default(), idle }
    }

    /// The pages behind the URLs.
    pub fn router(&self, node: Arc<Node>) -> Router {
        let shared = Shared { node, sessions: self.sessions.clone(), idle: self.idle };
        Router::new()
            .route("/exec/{token}", any(open))
            .route("/attach/{token}", any(open))
            .route("/portforward/{token}", any(open))
            .with_state(shared)
    }

    fn url(&self, kind: &str, session: Session) -> Result<String> {
        Ok(format!("http://{}/{kind}/{}", self.address, self.sessions.put(session)?))
    }

    /// URL of an exec stream.
    ///
    /// # Errors
    /// When the container is unknown or does not run, or the combination of streams makes no sense.
    pub fn exec(&self, node: &Node, request: cri::ExecRequest) -> Result<String> {
        let container = running(node, &request.container_id)?;
        check_streams(request.tty, request.stdin, request.stdout, request.stderr)?;
        if request.cmd.is_empty() {
            return Err(Error::Invalid("no command specified".to_owned()));
        }
        let (command, tty) = (request.cmd, request.tty);
        let (stdin, stdout, stderr) = (request.stdin, request.stdout, request.stderr);
        self.url("exec", Session::Exec { container, command, tty, stdin, stdout, stderr })
    }

    /// URL of an attach stream.
    ///
    /// # Errors
    /// As [`StreamServer::exec`].
    pub fn attach(&self, node: &Node, request: cri::AttachRequest) -> Result<String> {
        let container = running(node, &request.container_id)?;
        check_streams(request.tty, request.stdin, request.stdout, request.stderr)?;
        let (tty, stdin, stdout, stderr) =
            (request.tty, request.stdin, request.stdout, request.stderr);
        self.url("attach", Session::Attach { container, tty, stdin, stdout, stderr })
    }

    /// URL of a port-forward stream.
    ///
    /// # Errors
    /// When the sandbox is unknown or not ready, or a port is out of range.
    pub fn port_forward(&self, node: &Node, request: cri::PortForwardRequest) -> Result<String> {
        let sandbox = node.sandbox(&request.pod_sandbox_id)?;
        if sandbox.phase() != SandboxPhase::Ready {
            return Err(Error::State(format!("sandbox container {:?} is not running", sandbox.id)));
        }
        let port = |port: &i32| {
            u16::try_from(*port)
                .ok()
                .filter(|port| *port > 0)
                .ok_or_else(|| Error::Invalid(format!("invalid port {port}")))
        };
        let ports = request.port.iter().map(port).collect::<Result<_>>()?;
        self.url("portforward", Session::PortForward { sandbox: sandbox.id.clone(), ports })
    }
}

fn running(node: &Node, part: &str) -> Result<String> {
    let container = node.container(part)?;
    if container.phase() != ContainerPhase::Running {
        return Err(Error::State(format!("container {:?} is not running", container.id)));
    }
    Ok(container.id.clone())
}

fn check_streams(tty: bool, stdin: bool, stdout: bool, stderr: bool) -> Result<()> {
    if !stdin && !stdout && !stderr {
        return Err(Error::Invalid("one of stdin, stdout, or stderr must be set".to_owned()));
    }
    if tty && stderr {
        return Err(Error::Invalid("tty and stderr cannot both be true".to_owned()));
    }
    Ok(())
}

async fn open(
    State(shared): State<Shared>,
    Path(token): Path<String>,
    request: Request,
) -> Response {
    let Some(kind) = upgrade_kind(request.headers()) else {
        return (StatusCode::BAD_REQUEST, "this address needs a connection upgrade to websocket\n")
            .into_response();
    };
    if kind.starts_with("spdy/") {
        let text = "not supported yet: SPDY streams; use a client that speaks websocket (v5.channel.k8s.io)\n";
        return (StatusCode::FORBIDDEN, text).into_response();
    }
    let Some(session) = shared.sessions.take(&token) else {
        return (StatusCode::NOT_FOUND, "unknown or used token\n").into_response();
    };
    websocket::accept(shared.node, session, shared.idle, request).unwrap_or_else(|refused| refused)
}

/// What the client wants to speak, in lower case.
fn upgrade_kind(headers: &HeaderMap) -> Option<String> {
    let connection =
        headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let asked = connection
        .flat_map(|value| value.split(','))
        .any(|word| word.trim().eq_ignore_ascii_case("upgrade"));
    let kind = headers.get(header::UPGRADE)?.to_str().ok()?.to_ascii_lowercase();
    asked.then_some(kind)
}

/// An answer that refuses an upgrade.
pub(super) fn refuse(status: StatusCode, text: &str) -> Response {
    Response::builder().status(status).body(Body::from(format!("{text}\n"))).unwrap_or_default()
}

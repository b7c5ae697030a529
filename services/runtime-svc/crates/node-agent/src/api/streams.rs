//! `/exec`, `/attach`, `/portForward`: the runtime prepares a session, the bytes of the upgraded connection are
//! passed through. SPDY or WebSocket is between client and runtime.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use flotilla_proto::cri::runtime::v1 as cri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::Failure;
use super::query::Params;
use crate::engine::kube::Pod;
use crate::engine::observed::{Observed, RunState};
use crate::sync::agent::Agent;

type Agents = State<Arc<Agent>>;

/// `/exec/{namespace}/{pod}/{container}`.
pub async fn exec(
    State(agent): Agents,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    request: Request,
) -> Result<Response, Failure> {
    let params = Params::parse(request.uri().query());
    let id = container_id(&agent, &namespace, &pod, &container).await?;
    let cmd = params.all("command");
    if cmd.is_empty() {
        return Err(Failure(
            StatusCode::BAD_REQUEST,
            "you must specify at least 1 command to exec".to_owned(),
        ));
    }
    let tty = params.flag(&["tty"]);
    let wanted = cri::ExecRequest {
        container_id: id,
        cmd,
        tty,
        stdin: params.flag(&["input", "stdin"]),
        stdout: params.flag(&["output", "stdout"]),
        // A terminal has one output.
        stderr: !tty && params.flag(&["error", "stderr"]),
    };
    if !wanted.stdin && !wanted.stdout && !wanted.stderr {
        return Err(Failure(
            StatusCode::BAD_REQUEST,
            "you must specify at least 1 of stdin, stdout, stderr".to_owned(),
        ));
    }
    let url = agent.cri.exec_url(wanted).await.map_err(|status| Failure::of_runtime(&status))?;
    proxy(&url, request).await
}

/// `/exec/{namespace}/{pod}/{uid}/{container}`.
pub async fn exec_with_uid(
    agent: Agents,
    Path((namespace, pod, uid, container)): Path<(String, String, String, String)>,
    request: Request,
) -> Result<Response, Failure> {
    check_uid(&agent.0, &namespace, &pod, &uid)?;
    exec(agent, Path((namespace, pod, container)), request).await
}

/// `/attach/{namespace}/{pod}/{container}`.
pub async fn attach(
    State(agent): Agents,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    request: Request,
) -> Result<Response, Failure> {
    let params = Params::parse(request.uri().query());
    let container_id = container_id(&agent, &namespace, &pod, &container).await?;
    let tty = find(&agent, &namespace, &pod)?.container(&container).is_some_and(|c| c.tty);
    let wanted = cri::AttachRequest {
        container_id,
        stdin: params.flag(&["input", "stdin"]),
        tty,
        stdout: params.flag(&["output", "stdout"]),
        stderr: !tty && params.flag(&["error", "stderr"]),
    };
    let url = agent.cri.attach_url(wanted).await.map_err(|status| Failure::of_runtime(&status))?;
    proxy(&url, request).await
}

/// `/attach/{namespace}/{pod}/{uid}/{container}`.
pub async fn attach_with_uid(
    agent: Agents,
    Path((namespace, pod, uid, container)): Path<(String, String, String, String)>,
    request: Request,
) -> Result<Response, Failure> {
    check_uid(&agent.0, &namespace, &pod, &uid)?;
    attach(agent, Path((namespace, pod, container)), request).await
}

/// `/portForward/{namespace}/{pod}`.
pub async fn port_forward(
    State(agent): Agents,
    Path((namespace, pod)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Failure> {
    let found = find(&agent, &namespace, &pod)?;
    let seen = look(&agent, &found).await?;
    let sandbox = seen.sandbox().filter(|sandbox| sandbox.ready);
    let sandbox = sandbox.ok_or_else(|| {
        Failure(StatusCode::NOT_FOUND, format!("failed to find sandbox for pod {pod:?}"))
    })?;
    let params = Params::parse(request.uri().query());
    let ports = params
        .all("port")
        .iter()
        .chain(&params.all("ports"))
        .flat_map(|list| list.split(','))
        .filter_map(|port| port.parse().ok())
        .collect();
    let url = agent
        .cri
        .port_forward_url(&sandbox.id, ports)
        .await
        .map_err(|status| Failure::of_runtime(&status))?;
    proxy(&url, request).await
}

/// `/portForward/{namespace}/{pod}/{uid}`.
pub async fn port_forward_with_uid(
    agent: Agents,
    Path((namespace, pod, uid)): Path<(String, String, String)>,
    request: Request,
) -> Result<Response, Failure> {
    check_uid(&agent.0, &namespace, &pod, &uid)?;
    port_forward(agent, Path((namespace, pod)), request).await
}

/// `POST /run/{namespace}/{pod}/{container}?cmd=...`: a command and its output.
pub async fn run(
    State(agent): Agents,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    request: Request,
) -> Result<Response, Failure> {
    let params = Params::parse(request.uri().query());
    let id = container_id(&agent, &namespace, &pod, &container).await?;
    let words: Vec<String> =
        params.get("cmd").unwrap_or_default().split(' ').map(str::to_owned).collect();
    let (code, output) = agent
        .cri
        .exec(&id, &words, Duration::from_secs(60))
        .await
        .map_err(|status| Failure::of_runtime(&status))?;
    let status = if code == 0 { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR };
    Ok((status, output).into_response())
}

fn find(agent: &Agent, namespace: &str, pod: &str) -> Result<Arc<Pod>, Failure> {
    agent
        .find_pod(namespace, pod)
        .ok_or_else(|| Failure(StatusCode::NOT_FOUND, "pod does not exist".to_owned()))
}

fn check_uid(agent: &Agent, namespace: &str, pod: &str, uid: &str) -> Result<(), Failure> {
    if find(agent, namespace, pod)?.uid() == uid {
        Ok(())
    } else {
        Err(Failure(StatusCode::NOT_FOUND, "pod does not exist".to_owned()))
    }
}

async fn look(agent: &Agent, pod: &Pod) -> Result<Observed, Failure> {
    agent.cri.observe(pod.uid()).await.map_err(|status| Failure::of_runtime(&status))
}

async fn container_id(
    agent: &Agent,
    namespace: &str,
    pod: &str,
    container: &str,
) -> Result<String, Failure> {
    let found = find(agent, namespace, pod)?;
    let seen = look(agent, &found).await?;
    let run =
        seen.runs.into_iter().find(|run| run.name == container && run.state == RunState::Running);
    run.map(|run| run.id).ok_or_else(|| {
        Failure(StatusCode::NOT_FOUND, format!("container not found ({container:?})"))
    })
}

/// Sends the request on to the runtime's streaming server and joins the two upgraded connections.
async fn proxy(url: &str, mut request: Request) -> Result<Response, Failure> {
    let fail = |error: &dyn std::fmt::Display| {
        Failure(StatusCode::BAD_GATEWAY, format!("the runtime's streaming server: {error}"))
    };
    let target: http::Uri = url.parse().map_err(|e| fail(&e))?;
    let authority = target.authority().cloned().ok_or_else(|| fail(&"its URL has no host"))?;
    if target.scheme_str() != Some("http") {
        return Err(fail(&format!("not supported yet: {:?}", target.scheme_str())));
    }
    let stream = TcpStream::connect((
        authority.host().trim_matches(['[', ']']),
        authority.port_u16().unwrap_or(80),
    ))
    .await
    .map_err(|e| fail(&e))?;
    // Interactive sessions are made of small packets; failing to hurry them is no reason to fail.
    let _ = stream.set_nodelay(true);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| fail(&e))?;
    tokio::spawn(connection.with_upgrades());
    let client = hyper::upgrade::on(&mut request);
    let mut onward = http::Request::builder()
        .method(request.method().clone())
        .uri(target.path_and_query().map_or("/", http::uri::PathAndQuery::as_str));
    for (name, value) in request.headers() {
        // Credentials are for this server, not for the runtime.
        if name != header::HOST && name != header::AUTHORIZATION {
            onward = onward.header(name, value);
        }
    }
    let onward = onward
        .header(header::HOST, authority.as_str())
        .body(Body::empty())
        .map_err(|e| fail(&e))?;
    let mut answer = sender.send_request(onward).await.map_err(|e| fail(&e))?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(answer.map(Body::new));
    }
    let runtime = hyper::upgrade::on(&mut answer);
    tokio::spawn(async move {
        let (client, runtime) = match tokio::try_join!(client, runtime) {
            Ok(pair) => pair,
            Err(error) => return tracing::debug!(%error, "a session was not upgraded"),
        };
        let (mut client, mut runtime) = (TokioIo::new(client), TokioIo::new(runtime));
        if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut runtime).await {
            tracing::debug!(%error, "a session ended early");
        }
    });
    let (parts, _) = answer.into_parts();
    Ok(Response::from_parts(parts, Body::empty()))
}

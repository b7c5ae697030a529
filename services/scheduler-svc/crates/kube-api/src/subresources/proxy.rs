//! Logs, exec, attach and port-forward: passed on to the kubelet of the pod's node, upgrades included.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use http::header::{AUTHORIZATION, CONNECTION, HOST, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderValue, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use kube_spec::find;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::Config;
use crate::error::ApiError;
use crate::object::{int, list, text};
use crate::request::{Query, Target};
use crate::server::Api;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How kubelets are called.
#[derive(Clone)]
pub struct KubeletClient {
    tls: TlsConnector,
    token: Option<HeaderValue>,
}

impl std::fmt::Debug for KubeletClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KubeletClient").finish_non_exhaustive()
    }
}

impl KubeletClient {
    /// A client out of the kubelet flags.
    ///
    /// # Errors
    /// Names the flag whose file cannot be used.
    pub fn new(config: &Config) -> Result<Self, String> {
        let tls = crate::kubelet_tls::client_config(config)?;
        let token = config.kubelet_client_token.as_ref();
        let token = token.map(|t| HeaderValue::from_str(&format!("Bearer {t}"))).transpose();
        let token = token.map_err(|_| {
            "--kubelet-client-token holds characters no header can carry".to_owned()
        })?;
        Ok(Self { tls: TlsConnector::from(Arc::new(tls)), token })
    }
}

impl Api {
    /// Passes a request on to a kubelet.
    pub(crate) async fn proxy(
        &self,
        target: &Target,
        query: &Query,
        request: Request,
    ) -> Result<Response<Body>, ApiError> {
        let (node, path) = if target.resource.plural == "nodes" {
            let rest = &target.rest;
            let query = request.uri().query().map(|q| format!("?{q}")).unwrap_or_default();
            (target.name.clone(), format!("/{rest}{query}"))
        } else {
            self.pod_path(target, query).await?
        };
        let address = self.kubelet_address(&node).await?;
        self.forward(&address, &path, request).await
    }

    async fn pod_path(&self, target: &Target, query: &Query) -> Result<(String, String), ApiError> {
        let (namespace, name) = (&target.namespace, &target.name);
        let pod = self.current(target.resource, &format!("{namespace}/{name}")).await?;
        let pod = pod.ok_or_else(|| ApiError::not_found(target.resource, name))?;
        let node = text(&pod.object, "/spec/nodeName").to_owned();
        if node.is_empty() {
            return Err(ApiError::bad_request(format!("pod {name} does not have a host assigned")));
        }
        let phase = text(&pod.object, "/status/phase");
        if target.sub() != "log" && matches!(phase, "Succeeded" | "Failed") {
            return Err(ApiError::bad_request(format!(
                "cannot exec into a container in a completed pod; current phase is {phase}"
            )));
        }
        let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let path = match target.sub() {
            "log" => {
                let container = container_of(&pod.object, query.get("container"))?;
                let names = [
                    "follow",
                    "limitBytes",
                    "previous",
                    "sinceSeconds",
                    "sinceTime",
                    "tailLines",
                    "timestamps",
                    "stream",
                ];
                let pairs: Vec<String> = names
                    .into_iter()
                    .filter(|n| query.has(n))
                    .map(|n| format!("{n}={}", encode(query.get(n))))
                    .collect();
                format!("/containerLogs/{namespace}/{name}/{container}?{}", pairs.join("&"))
            }
            "portforward" => {
                let pairs: Vec<String> =
                    query.all("ports").iter().map(|p| format!("port={}", encode(p))).collect();
                format!("/portForward/{namespace}/{name}?{}", pairs.join("&"))
            }
            action => {
                let container = container_of(&pod.object, query.get("container"))?;
                let mut pairs: Vec<String> =
                    query.all("command").iter().map(|c| format!("command={}", encode(c))).collect();
                for (own, theirs) in
                    [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")]
                {
                    if query.flag(own) {
                        pairs.push(format!("{theirs}=1"));
                    }
                }
                format!("/{action}/{namespace}/{name}/{container}?{}", pairs.join("&"))
            }
        };
        Ok((node, path))
    }

    async fn kubelet_address(&self, node: &str) -> Result<String, ApiError> {
        let nodes = find("", "v1", "nodes").ok_or_else(ApiError::no_such_path)?;
        let entry =
            self.current(nodes, node).await?.ok_or_else(|| ApiError::not_found(nodes, node))?;
        let addresses = list(&entry.object, "/status/addresses");
        let by_type = |kind: &str| {
            addresses.iter().find(|a| text(a, "/type") == kind).map(|a| text(a, "/address"))
        };
        let host =
            by_type("InternalIP").or_else(|| by_type("ExternalIP")).or_else(|| by_type("Hostname"));
        let host = host.ok_or_else(|| {
            ApiError::internal(format!(
                "no preferred addresses found; known addresses: {addresses:?}"
            ))
        })?;
        let port = int(&entry.object, "/status/daemonEndpoints/kubeletEndpoint/Port")
            .filter(|p| *p > 0)
            .unwrap_or(10250);
        Ok(if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
    }

    async fn forward(
        &self,
        address: &str,
        path: &str,
        mut request: Request,
    ) -> Result<Response<Body>, ApiError> {
        let failed = |why: &dyn std::fmt::Display| {
            ApiError::internal(format!("error dialing backend: https://{address}: {why}"))
        };
        let client_upgrade =
            request.headers().contains_key(UPGRADE).then(|| hyper::upgrade::on(&mut request));
        let connect = async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let host = address
                .rsplit_once(':')
                .map_or(address, |(h, _)| h)
                .trim_matches(['[', ']'])
                .to_owned();
            let name = ServerName::try_from(host).map_err(std::io::Error::other)?;
            self.kubelets.tls.connect(name, stream).await
        };
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, connect).await;
        let stream = stream.map_err(|_| failed(&"timed out"))?.map_err(|e| failed(&e))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| failed(&e))?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "connection to a kubelet ended early");
            }
        });
        let outgoing = self.outgoing(address, path, request)?;
        let mut answer = sender.send_request(outgoing).await.map_err(|e| failed(&e))?;
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            let kubelet_upgrade = hyper::upgrade::on(&mut answer);
            if let Some(client_upgrade) = client_upgrade {
                let shutdown = self.shutdown.clone();
                tokio::spawn(async move {
                    let (Ok(client), Ok(kubelet)) = (client_upgrade.await, kubelet_upgrade.await)
                    else {
                        return;
                    };
                    let (mut client, mut kubelet) = (TokioIo::new(client), TokioIo::new(kubelet));
                    tokio::select! {
                        // Either side may hang up at any time.
                        _ = tokio::io::copy_bidirectional(&mut client, &mut kubelet) => {}
                        () = shutdown.triggered() => {}
                    }
                });
            }
        }
        let (mut parts, body) = answer.into_parts();
        if parts.status != StatusCode::SWITCHING_PROTOCOLS {
            parts.headers.remove(CONNECTION);
            parts.headers.remove(TRANSFER_ENCODING);
        }
        if parts.status.is_redirection() {
            return Err(failed(&"the kubelet answered with a redirect, which is never followed"));
        }
        parts.version = http::Version::default();
        Ok(Response::from_parts(parts, Body::new(body)))
    }

    fn outgoing(
        &self,
        address: &str,
        path: &str,
        request: Request,
    ) -> Result<http::Request<Body>, ApiError> {
        let (mut parts, body) = request.into_parts();
        parts.uri = path.parse::<Uri>().map_err(|e| ApiError::bad_request(e.to_string()))?;
        parts.version = http::Version::HTTP_11;
        parts.extensions = http::Extensions::new();
        parts.headers.remove(AUTHORIZATION);
        parts.headers.remove(TRANSFER_ENCODING);
        let host = HeaderValue::from_str(address).map_err(ApiError::internal)?;
        parts.headers.insert(HOST, host);
        if let Some(token) = &self.kubelets.token {
            parts.headers.insert(AUTHORIZATION, token.clone());
        }
        Ok(http::Request::from_parts(parts, body))
    }
}

fn container_of(pod: &Value, asked: &str) -> Result<String, ApiError> {
    let name = text(pod, "/metadata/name");
    let all: Vec<&str> = ["containers", "initContainers", "ephemeralContainers"]
        .iter()
        .flat_map(|key| list(pod, &format!("/spec/{key}")))
        .map(|c| text(c, "/name"))
        .collect();
    if !asked.is_empty() {
        if all.contains(&asked) {
            return Ok(asked.to_owned());
        }
        return Err(ApiError::bad_request(format!(
            "container {asked} is not valid for pod {name}"
        )));
    }
    let main: Vec<&str> = list(pod, "/spec/containers").iter().map(|c| text(c, "/name")).collect();
    let preferred = pod.pointer("/metadata/annotations/kubectl.kubernetes.io~1default-container");
    if let Some(preferred) = preferred.and_then(Value::as_str).filter(|p| all.contains(p)) {
        return Ok(preferred.to_owned());
    }
    match main.as_slice() {
        [one] => Ok((*one).to_owned()),
        _ => Err(ApiError::bad_request(format!(
            "a container name must be specified for pod {name}, choose one of: [{}]",
            main.join(" ")
        ))),
    }
}

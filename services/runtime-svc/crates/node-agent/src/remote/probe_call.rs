//! One probe or hook: a command, a page, a connection, a gRPC health call.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;

use super::cri::Cri;
use crate::engine::kube::{Container, Handler, HttpGetAction, PortRef};

const MAX_BODY: usize = 10 << 10;

/// Who is probed.
#[derive(Debug, Clone)]
pub struct Target {
    /// The container.
    pub container: Arc<Container>,
    /// Id of the run.
    pub id: String,
    /// The pod's address.
    pub ip: String,
}

/// Runs `handler` against `target`.
///
/// # Errors
/// What went wrong, as it appears in the event.
pub async fn call(
    cri: &Cri,
    target: &Target,
    handler: &Handler,
    timeout: Duration,
) -> Result<(), String> {
    if let Some(exec) = &handler.exec {
        return command(cri, target, &exec.command, timeout).await;
    }
    if let Some(sleep) = &handler.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
        return Ok(());
    }
    let attempt = async {
        if let Some(get) = &handler.http_get {
            return page(target, get).await;
        }
        if let Some(tcp) = &handler.tcp_socket {
            let host = if tcp.host.is_empty() { &target.ip } else { &tcp.host };
            return connect(host, port(&target.container, &tcp.port)?).await.map(drop);
        }
        if let Some(grpc) = &handler.grpc {
            return health(&target.ip, grpc.port, grpc.service.as_deref().unwrap_or_default())
                .await;
        }
        Err("missing probe handler".to_owned())
    };
    tokio::time::timeout(timeout, attempt)
        .await
        .unwrap_or_else(|_| Err("context deadline exceeded".to_owned()))
}

async fn command(
    cri: &Cri,
    target: &Target,
    command: &[String],
    timeout: Duration,
) -> Result<(), String> {
    match cri.exec(&target.id, command, timeout).await {
        Ok((0, _)) => Ok(()),
        Ok((_, output)) => {
            Err(String::from_utf8_lossy(&output[..output.len().min(MAX_BODY)]).into_owned())
        }
        Err(status) if status.code() == tonic::Code::DeadlineExceeded => {
            Err(format!("command timed out: {command:?} timed out after {timeout:?}"))
        }
        Err(status) => Err(status.message().to_owned()),
    }
}

fn port(container: &Container, port: &PortRef) -> Result<u16, String> {
    let number = match port {
        PortRef::Number(number) => Some(*number),
        PortRef::Name(name) => {
            let named = container.ports.iter().find(|p| p.name == *name).map(|p| p.container_port);
            named.or_else(|| name.parse().ok())
        }
    };
    number
        .and_then(|n| u16::try_from(n).ok())
        .filter(|n| *n > 0)
        .ok_or_else(|| format!("invalid port: {port:?}"))
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    let host = host.trim_matches(['[', ']']);
    TcpStream::connect((host, port))
        .await
        .map_err(|error| format!("dial tcp {host}:{port}: connect: {error}"))
}

async fn page(target: &Target, get: &HttpGetAction) -> Result<(), String> {
    let host = if get.host.is_empty() { &target.ip } else { &get.host };
    let port = port(&target.container, &get.port)?;
    let stream = connect(host, port)
        .await
        .map_err(|error| format!("Get \"{}\": {error}", url(host, port, get)))?;
    if get.scheme.eq_ignore_ascii_case("https") {
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
            .map_err(|e| e.to_string())?;
        let stream = insecure_tls()?.connect(name, stream).await.map_err(|e| e.to_string())?;
        return exchange(TokioIo::new(stream), host, port, get).await;
    }
    exchange(TokioIo::new(stream), host, port, get).await
}

fn url(host: &str, port: u16, get: &HttpGetAction) -> String {
    let scheme = if get.scheme.is_empty() { "http".to_owned() } else { get.scheme.to_lowercase() };
    let slash = if get.path.starts_with('/') { "" } else { "/" };
    format!("{scheme}://{host}:{port}{slash}{}", get.path)
}

async fn exchange<I>(io: I, host: &str, port: u16, get: &HttpGetAction) -> Result<(), String>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let url = url(host, port, get);
    let fail = |error: &dyn std::fmt::Display| format!("Get \"{url}\": {error}");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(io).await.map_err(|e| fail(&e))?;
    let connection = tokio::spawn(connection);
    let slash = if get.path.starts_with('/') { "" } else { "/" };
    let mut request = http::Request::get(format!("{slash}{}", get.path));
    let header = |name: &str| get.http_headers.iter().any(|h| h.name.eq_ignore_ascii_case(name));
    for (name, value) in [
        ("host", format!("{host}:{port}")),
        ("user-agent", "kube-probe/1.35".to_owned()),
        ("accept", "*/*".to_owned()),
    ] {
        if !header(name) {
            request = request.header(name, value);
        }
    }
    for own in &get.http_headers {
        request = request.header(&own.name, &own.value);
    }
    let request =
        request.header("connection", "close").body(Empty::<Bytes>::new()).map_err(|e| fail(&e))?;
    let answer = sender.send_request(request).await.map_err(|e| fail(&e))?;
    let status = answer.status();
    // The body is read so that the server sees an ordinary client; more than the limit says nothing new.
    let _ = Limited::new(answer.into_body(), MAX_BODY).collect().await;
    connection.abort();
    if (200..400).contains(&status.as_u16()) {
        Ok(())
    } else {
        Err(format!("HTTP probe failed with statuscode: {}", status.as_u16()))
    }
}

async fn health(ip: &str, port: u16, service: &str) -> Result<(), String> {
    use tonic_health::pb::health_check_response::ServingStatus;
    use tonic_health::pb::health_client::HealthClient;
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
    let channel =
        flotilla_client::channel(&format!("http://{host}:{port}")).map_err(|e| e.to_string())?;
    let request = tonic_health::pb::HealthCheckRequest { service: service.to_owned() };
    let answer = HealthClient::new(channel)
        .check(request)
        .await
        .map_err(|status| format!("error: {}", status.message()))?;
    let status = answer.into_inner().status();
    if status == ServingStatus::Serving {
        Ok(())
    } else {
        Err(format!("service unhealthy (responded with {:?})", status.as_str_name()))
    }
}

/// Probes check that something answers, not who: kubelet verifies no certificates either.
fn insecure_tls() -> Result<tokio_rustls::TlsConnector, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    Ok(tokio_rustls::TlsConnector::from(Arc::new(config)))
}

#[derive(Debug)]
struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &[rustls_pki_types::CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls_pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &rustls_pki_types::CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &rustls_pki_types::CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

//! TLS contexts: certificates from files or inline, for listeners and for upstreams.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::bootstrap::{ConfigError, data_source, pb, unpack};

const DOWNSTREAM: &str = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
const UPSTREAM: &str = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
const RAW: &str = "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer";

type Chain = Vec<CertificateDer<'static>>;

/// How to speak TLS to an endpoint.
#[derive(Clone)]
pub struct UpstreamTls {
    connector: TlsConnector,
    sni: Option<ServerName<'static>>,
}

impl std::fmt::Debug for UpstreamTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UpstreamTls").field("sni", &self.sni).finish_non_exhaustive()
    }
}

impl UpstreamTls {
    /// The connector, and the name to ask for at `address`.
    pub fn parts(&self, address: &super::address::Address) -> (TlsConnector, ServerName<'static>) {
        let fallback = || match address {
            super::address::Address::Tcp(address) => ServerName::IpAddress(address.ip().into()),
            super::address::Address::Name(name, _) => {
                ServerName::try_from(name.clone()).unwrap_or_else(|_| local_name())
            }
            super::address::Address::Unix(_) => local_name(),
        };
        (self.connector.clone(), self.sni.clone().unwrap_or_else(fallback))
    }
}

fn local_name() -> ServerName<'static> {
    ServerName::try_from("localhost").expect("localhost is a valid name")
}

/// The acceptor a filter chain's transport socket asks for; `None` for plain text.
///
/// # Errors
/// When the socket is of another kind or its certificates do not work.
pub fn downstream(
    socket: Option<&pb::core::TransportSocket>,
    path: &str,
) -> Result<Option<TlsAcceptor>, ConfigError> {
    let Some(any) = typed(socket, path)? else { return Ok(None) };
    let context: pb::tls::DownstreamTlsContext = unpack(any, DOWNSTREAM, path)?;
    let common = context.common_tls_context.unwrap_or_default();
    let fail = |error: rustls::Error| ConfigError::invalid(path, error.to_string());
    let (chain, key) = identity(&common, path)?.ok_or_else(|| {
        ConfigError::invalid(path, "No TLS certificates found for server context")
    })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(fail)?;
    let builder = match roots(&common, path)? {
        None => builder.with_no_client_auth(),
        Some(roots) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let required = context.require_client_certificate.unwrap_or(false);
            let verifier = if required { verifier } else { verifier.allow_unauthenticated() };
            builder.with_client_cert_verifier(
                verifier.build().map_err(|e| ConfigError::invalid(path, e.to_string()))?,
            )
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(fail)?;
    config.alpn_protocols =
        common.alpn_protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    Ok(Some(TlsAcceptor::from(Arc::new(config))))
}

/// The connector a cluster's transport socket asks for; `None` for plain text.
///
/// Like Envoy, a context without `trusted_ca` accepts any certificate.
///
/// # Errors
/// When the socket is of another kind or its certificates do not work.
pub fn upstream(
    socket: Option<&pb::core::TransportSocket>,
    h2: bool,
    path: &str,
) -> Result<Option<UpstreamTls>, ConfigError> {
    let Some(any) = typed(socket, path)? else { return Ok(None) };
    let context: pb::tls::UpstreamTlsContext = unpack(any, UPSTREAM, path)?;
    let common = context.common_tls_context.unwrap_or_default();
    let fail = |error: rustls::Error| ConfigError::invalid(path, error.to_string());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(fail)?;
    let builder = match roots(&common, path)? {
        Some(roots) => builder.with_root_certificates(roots),
        None => builder.dangerous().with_custom_certificate_verifier(Arc::new(AcceptAny(provider))),
    };
    let mut config = match identity(&common, path)? {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(fail)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols =
        common.alpn_protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    if config.alpn_protocols.is_empty() && h2 {
        config.alpn_protocols = vec![b"h2".to_vec()];
    }
    let sni = (!context.sni.is_empty())
        .then(|| {
            ServerName::try_from(context.sni.clone())
                .map_err(|e| ConfigError::invalid(format!("{path}.sni"), e.to_string()))
        })
        .transpose()?;
    Ok(Some(UpstreamTls { connector: TlsConnector::from(Arc::new(config)), sni }))
}

fn typed<'a>(
    socket: Option<&'a pb::core::TransportSocket>,
    path: &str,
) -> Result<Option<&'a prost_types::Any>, ConfigError> {
    let Some(socket) = socket else { return Ok(None) };
    let Some(pb::core::transport_socket::ConfigType::TypedConfig(any)) = &socket.config_type else {
        return Err(ConfigError::invalid(path, "typed_config is missing"));
    };
    Ok((!any.type_url.ends_with(RAW)).then_some(any))
}

fn identity(
    common: &pb::tls::CommonTlsContext,
    path: &str,
) -> Result<Option<(Chain, PrivateKeyDer<'static>)>, ConfigError> {
    let certificate = match common.tls_certificates.as_slice() {
        [] => return Ok(None),
        [one] => one,
        _ => {
            return Err(ConfigError::unsupported(format!(
                "{path}.tls_certificates: more than one"
            )));
        }
    };
    let missing = |what: &str| {
        ConfigError::invalid(format!("{path}.tls_certificates"), format!("{what} is missing"))
    };
    let chain =
        certificate.certificate_chain.as_ref().ok_or_else(|| missing("certificate_chain"))?;
    let key = certificate.private_key.as_ref().ok_or_else(|| missing("private_key"))?;
    let chain = certificates(&data_source(chain, path)?, path)?;
    let key = PrivateKeyDer::from_pem_slice(&data_source(key, path)?)
        .map_err(|error| ConfigError::invalid(format!("{path}.private_key"), error.to_string()))?;
    Ok(Some((chain, key)))
}

fn roots(
    common: &pb::tls::CommonTlsContext,
    path: &str,
) -> Result<Option<RootCertStore>, ConfigError> {
    use pb::tls::common_tls_context::ValidationContextType;
    let Some(ValidationContextType::ValidationContext(context)) = &common.validation_context_type
    else {
        return Ok(None);
    };
    let Some(source) = &context.trusted_ca else { return Ok(None) };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&data_source(source, path)?, path)? {
        roots.add(certificate).map_err(|error| {
            ConfigError::invalid(format!("{path}.trusted_ca"), error.to_string())
        })?;
    }
    Ok(Some(roots))
}

fn certificates(pem: &[u8], path: &str) -> Result<Chain, ConfigError> {
    let list: Result<Chain, _> = CertificateDer::pem_slice_iter(pem).collect();
    let list = list.map_err(|error| ConfigError::invalid(path, error.to_string()))?;
    if list.is_empty() {
        Err(ConfigError::invalid(path, "no PEM certificate found"))
    } else {
        Ok(list)
    }
}

/// Accepts every certificate but checks that the peer holds its key.
#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
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
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

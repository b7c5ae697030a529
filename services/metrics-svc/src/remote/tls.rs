//! TLS settings of a scrape.

use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use super::ca_bundle;
use crate::config::{HttpClientConfig, TlsConfig};

/// A connector for http and https with a section's settings.
///
/// # Errors
/// Names the file or setting that cannot be used.
pub(crate) fn connector(http: &HttpClientConfig) -> Result<HttpsConnector<HttpConnector>, String> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    let builder = HttpsConnectorBuilder::new()
        .with_tls_config(client_config(&http.tls_config)?)
        .https_or_http();
    let builder = match &http.tls_config.server_name {
        Some(name) => {
            let name = ServerName::try_from(name.clone())
                .map_err(|e| format!("server_name {name:?}: {e}"))?;
            builder.with_server_name_resolver(FixedServerNameResolver::new(name))
        }
        None => builder,
    };
    Ok(if http.enable_http2 {
        builder.enable_http1().enable_http2().wrap_connector(tcp)
    } else {
        builder.enable_http1().wrap_connector(tcp)
    })
}

fn client_config(tls: &TlsConfig) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?;
    let builder = if tls.insecure_skip_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AcceptAny(provider)))
    } else {
        builder.with_root_certificates(roots(tls)?)
    };
    let pem = |text: Option<Vec<u8>>, path: Option<&Path>| match (text, path) {
        (Some(text), _) => Ok(Some(text)),
        (None, Some(path)) => {
            std::fs::read(path).map(Some).map_err(|e| format!("{}: {e}", path.display()))
        }
        (None, None) => Ok(None),
    };
    let cert = pem(tls.cert.clone().map(String::into_bytes), tls.cert_file.as_deref())?;
    let key = pem(tls.key.clone().map(|s| s.0.into_bytes()), tls.key_file.as_deref())?;
    match (cert, key) {
        (Some(cert), Some(key)) => {
            let chain: Result<Vec<_>, _> =
                CertificateDer::pem_reader_iter(Cursor::new(cert)).collect();
            let chain = chain.map_err(|e| format!("client certificate: {e}"))?;
            let key =
                PrivateKeyDer::from_pem_slice(&key).map_err(|e| format!("client key: {e}"))?;
            builder.with_client_auth_cert(chain, key).map_err(|e| e.to_string())
        }
        (None, None) => Ok(builder.with_no_client_auth()),
        _ => Err("exactly one of cert and key is given; both are needed".to_owned()),
    }
}

fn roots(tls: &TlsConfig) -> Result<RootCertStore, String> {
    let pem = match (&tls.ca, &tls.ca_file) {
        (Some(text), _) => Some(text.clone().into_bytes()),
        (None, Some(path)) => {
            Some(std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?)
        }
        (None, None) => ca_bundle::read(),
    };
    let mut roots = RootCertStore::empty();
    for cert in CertificateDer::pem_reader_iter(Cursor::new(pem.unwrap_or_default())) {
        let cert = cert.map_err(|e| format!("CA certificate: {e}"))?;
        let added = roots.add(cert);
        // A system bundle may hold certificates rustls does not take; a configured one must not.
        if let (Err(error), true) = (added, tls.ca.is_some() || tls.ca_file.is_some()) {
            return Err(format!("CA certificate: {error}"));
        }
    }
    Ok(roots)
}

/// `insecure_skip_verify`: signatures are checked, names and chains are not.
#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

//! TLS towards kubelets: their certificates are self-signed unless an authority is given.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::Config;

/// The client side of connections to kubelets.
///
/// # Errors
/// Names the flag whose file cannot be used.
pub(crate) fn client_config(config: &Config) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?;
    let builder = match &config.kubelet_certificate_authority {
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for cert in chain("--kubelet-certificate-authority", path)? {
                roots.add(cert).map_err(|e| {
                    format!("--kubelet-certificate-authority {}: {e}", path.display())
                })?;
            }
            builder.with_root_certificates(roots)
        }
        None => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        }
    };
    match (&config.kubelet_client_certificate, &config.kubelet_client_key) {
        (Some(cert), Some(key)) => {
            let wrong =
                |e: &dyn std::fmt::Display| format!("--kubelet-client-key {}: {e}", key.display());
            let private = PrivateKeyDer::from_pem_file(key).map_err(|e| wrong(&e))?;
            let chain = chain("--kubelet-client-certificate", cert)?;
            builder.with_client_auth_cert(chain, private).map_err(|e| wrong(&e))
        }
        _ => Ok(builder.with_no_client_auth()),
    }
}

fn chain(flag: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = |e: &dyn std::fmt::Display| format!("{flag} {}: {e}", path.display());
    let list: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|e| wrong(&e))?.collect();
    list.map_err(|e| wrong(&e))
}

/// Accepts every certificate; the signature of the handshake is still checked.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
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
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

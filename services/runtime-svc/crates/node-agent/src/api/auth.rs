//! Who may use the kubelet API: holders of a certificate signed by the client CA, and on loopback holders of
//! the token or, when allowed, anybody.

use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use flotilla_server::PeerInfo;

use super::Failure;

/// What is accepted besides client certificates.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// File with the token that loopback clients may present; read at each request, so it can be replaced.
    pub token_file: Option<PathBuf>,
    /// Whether loopback clients need nothing.
    pub anonymous: bool,
}

impl Access {
    fn allows(&self, peer: &PeerInfo, authorization: Option<&str>) -> bool {
        // The TLS layer verified the chain against --client-ca-file.
        if !peer.certificates.is_empty() {
            return true;
        }
        if !peer.remote.is_some_and(|remote| remote.ip().to_canonical().is_loopback()) {
            return false;
        }
        let Some(given) = authorization.and_then(|value| value.strip_prefix("Bearer ")) else {
            return self.anonymous;
        };
        let known = self.token_file.as_ref().and_then(|path| std::fs::read_to_string(path).ok());
        known.is_some_and(|known| same(known.trim().as_bytes(), given.as_bytes()))
    }
}

/// Compares without telling by its time where two texts differ. An empty token matches nothing.
fn same(a: &[u8], b: &[u8]) -> bool {
    !a.is_empty() && a.len() == b.len() && a.iter().zip(b).fold(0, |sum, (x, y)| sum | (x ^ y)) == 0
}

/// Lets a request through, or answers 401.
pub async fn check(State(access): State<Arc<Access>>, request: Request, next: Next) -> Response {
    let authorization =
        request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let allowed = request
        .extensions()
        .get::<PeerInfo>()
        .is_some_and(|peer| access.allows(peer, authorization));
    if !allowed {
        return Failure(StatusCode::UNAUTHORIZED, "Unauthorized".to_owned()).into_response();
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(address: &str, certificates: Vec<Vec<u8>>) -> PeerInfo {
        PeerInfo { remote: Some(address.parse().unwrap()), local: None, certificates }
    }

    #[test]
    fn default_lets_only_certificates_in() {
        let access = Access::default();
        assert!(!access.allows(&peer("127.0.0.1:9", vec![]), None));
        assert!(!access.allows(&peer("127.0.0.1:9", vec![]), Some("Bearer ")));
        assert!(access.allows(&peer("192.0.2.7:9", vec![vec![1]]), None));
    }

    #[test]
    fn token_and_anonymous_count_on_loopback_only() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, "secret\n").unwrap();
        let access = Access { token_file: Some(file), anonymous: false };
        assert!(access.allows(&peer("127.0.0.1:9", vec![]), Some("Bearer secret")));
        assert!(access.allows(&peer("[::ffff:127.0.0.1]:9", vec![]), Some("Bearer secret")));
        assert!(!access.allows(&peer("192.0.2.7:9", vec![]), Some("Bearer secret")));
        for bad in ["Bearer secrex", "Bearer secre", "secret", "Basic secret"] {
            assert!(!access.allows(&peer("127.0.0.1:9", vec![]), Some(bad)), "{bad}");
        }
        let open = Access { token_file: None, anonymous: true };
        assert!(open.allows(&peer("[::1]:9", vec![]), None));
        assert!(!open.allows(&peer("192.0.2.7:9", vec![]), None));
    }
}

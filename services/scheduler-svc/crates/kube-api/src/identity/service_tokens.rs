//! Tokens of service accounts: signed (ES256) and checked here.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
    UnparsedPublicKey,
};
use serde_json::{Value, json};

use crate::object;
use crate::store::Cache;

/// Signs and checks tokens.
pub struct ServiceTokens {
    key: EcdsaKeyPair,
    issuer: String,
    random: SystemRandom,
}

impl std::fmt::Debug for ServiceTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServiceTokens").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

/// Whom a token is for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TokenSubject {
    /// Namespace of the account.
    pub namespace: String,
    /// Name of the account.
    pub name: String,
    /// Uid of the account.
    pub uid: String,
    /// Kind, name and uid of the object the token ends with.
    pub bound: Option<(String, String, String)>,
}

impl TokenSubject {
    /// Whether the account (and the object the token is bound to) still exist.
    pub fn is_alive(&self, cache: &Cache) -> bool {
        let exists = |plural: &str, name: &str, uid: &str| {
            let resource = kube_spec::find("", "v1", plural);
            let entry =
                resource.and_then(|r| cache.of(r)?.get(&format!("{}/{name}", self.namespace)));
            entry.is_some_and(|e| uid.is_empty() || object::uid(&e.object) == uid)
        };
        exists("serviceaccounts", &self.name, &self.uid)
            && self.bound.as_ref().is_none_or(|(kind, name, uid)| match kind.as_str() {
                "Pod" => exists("pods", name, uid),
                "Secret" => exists("secrets", name, uid),
                _ => true,
            })
    }
}

impl ServiceTokens {
    /// Loads the signing key (PKCS#8 PEM, P-256).
    ///
    /// # Errors
    /// Says what is wrong with the file.
    pub fn load(path: &Path, issuer: &str) -> Result<Self, String> {
        let fail = |why: String| format!("service account key {}: {why}", path.display());
        let text = std::fs::read_to_string(path).map_err(|e| fail(e.to_string()))?;
        let body: String = text.lines().filter(|l| !l.starts_with("-----")).collect();
        let der = STANDARD.decode(body).map_err(|e| fail(e.to_string()))?;
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der, &random)
            .map_err(|_| fail("it holds no PKCS#8 ECDSA P-256 key".to_owned()))?;
        Ok(Self { key, issuer: issuer.to_owned(), random })
    }

    /// The default audience.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// A token that is valid for `seconds` from `now`.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn issue(
        &self,
        subject: &TokenSubject,
        audiences: &[String],
        now: i64,
        seconds: i64,
    ) -> Result<String, String> {
        let mut claims = json!({
            "namespace": subject.namespace,
            "serviceaccount": {"name": subject.name, "uid": subject.uid},
        });
        if let Some((kind, name, uid)) = &subject.bound {
            claims[kind.to_ascii_lowercase()] = json!({"name": name, "uid": uid});
        }
        let payload = json!({
            "iss": self.issuer, "sub": format!("system:serviceaccount:{}:{}", subject.namespace, subject.name),
            "aud": audiences, "iat": now, "nbf": now, "exp": now + seconds,
            "jti": uuid::Uuid::new_v4().to_string(), "kubernetes.io": claims,
        });
        let header = json!({"alg": "ES256", "typ": "JWT"});
        let signed = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header.to_string()),
            URL_SAFE_NO_PAD.encode(payload.to_string())
        );
        let signature =
            self.key.sign(&self.random, signed.as_bytes()).map_err(|e| e.to_string())?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// Checks signature, time, issuer and audience (the issuer itself when `audiences` is empty).
    pub fn verify(&self, token: &str, audiences: &[String]) -> Option<TokenSubject> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, payload) = signed.split_once('.')?;
        let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
        if header["alg"] != "ES256" {
            return None;
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        let public =
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.key.public_key().as_ref());
        public.verify(signed.as_bytes(), &signature).ok()?;
        let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
        let now = kube_codec::now();
        let wanted = |aud: &str| {
            if audiences.is_empty() {
                aud == self.issuer
            } else {
                audiences.iter().any(|a| a == aud)
            }
        };
        let fits = claims["iss"] == self.issuer.as_str()
            && claims["exp"].as_i64()? > now
            && claims["nbf"].as_i64()? <= now + 5
            && object::list(&claims, "/aud").iter().filter_map(Value::as_str).any(wanted);
        if !fits {
            return None;
        }
        let own = &claims["kubernetes.io"];
        let bound = ["pod", "secret"].iter().find_map(|kind| {
            let object = own.get(*kind)?;
            let kind = if *kind == "pod" { "Pod" } else { "Secret" };
            Some((
                kind.to_owned(),
                object["name"].as_str()?.to_owned(),
                object["uid"].as_str()?.to_owned(),
            ))
        });
        Some(TokenSubject {
            namespace: own["namespace"].as_str()?.to_owned(),
            name: own["serviceaccount"]["name"].as_str()?.to_owned(),
            uid: own["serviceaccount"]["uid"].as_str()?.to_owned(),
            bound,
        })
    }
}

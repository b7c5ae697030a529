//! Client certificates, static tokens and service account tokens into users.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use flotilla_server::PeerInfo;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::service_tokens::ServiceTokens;
use crate::store::Cache;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Name.
    pub name: String,
    /// Uid, may be empty.
    pub uid: String,
    /// Groups, `system:authenticated` or `system:unauthenticated` among them.
    pub groups: Vec<String>,
}

impl User {
    /// The user of requests without credentials.
    pub fn anonymous() -> Self {
        Self {
            name: "system:anonymous".to_owned(),
            uid: String::new(),
            groups: vec!["system:unauthenticated".to_owned()],
        }
    }

    fn authenticated(name: String, uid: String, mut groups: Vec<String>) -> Self {
        groups.push("system:authenticated".to_owned());
        Self { name, uid, groups }
    }

    /// Whether the user is in a group.
    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }
}

/// Finds out who asks.
#[derive(Debug)]
pub struct Authenticator {
    tokens: HashMap<String, User>,
    service: Arc<ServiceTokens>,
    cache: Arc<Cache>,
    anonymous: bool,
}

impl Authenticator {
    /// Reads the token files; lines are `token,user,uid,"group1,group2"`.
    ///
    /// # Errors
    /// Names the file and line that is wrong.
    pub fn new(
        files: &[&Path],
        service: Arc<ServiceTokens>,
        cache: Arc<Cache>,
        anonymous: bool,
    ) -> Result<Self, String> {
        let mut tokens = HashMap::new();
        for file in files {
            let text = std::fs::read_to_string(file)
                .map_err(|e| format!("cannot read {}: {e}", file.display()))?;
            for (number, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
                let (token, user) = parse_line(line).ok_or_else(|| {
                    format!(
                        "{}:{}: a line is token,user,uid,\"group1,group2\"",
                        file.display(),
                        number + 1
                    )
                })?;
                tokens.insert(token, user);
            }
        }
        Ok(Self { tokens, service, cache, anonymous })
    }

    /// The user of a request; `None` when its credentials are wrong or it has none and needs some.
    pub fn user(&self, peer: Option<&PeerInfo>, headers: &HeaderMap) -> Option<User> {
        if let Some(leaf) = peer.and_then(|p| p.certificates.first())
            && let Some(user) = certificate_user(leaf)
        {
            return Some(user);
        }
        match headers.get(AUTHORIZATION) {
            None if self.anonymous => Some(User::anonymous()),
            None => None,
            Some(value) => {
                let text = value.to_str().ok()?;
                let (scheme, token) = text.split_once(' ')?;
                if !scheme.eq_ignore_ascii_case("bearer") {
                    return None;
                }
                self.token_user(token.trim(), &[])
            }
        }
    }

    /// The user of a bearer token.
    pub fn token_user(&self, token: &str, audiences: &[String]) -> Option<User> {
        if let Some(user) = self.tokens.get(token) {
            return Some(user.clone());
        }
        let subject = self.service.verify(token, audiences)?;
        if !subject.is_alive(&self.cache) {
            return None;
        }
        let groups = vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{}", subject.namespace),
        ];
        let name = format!("system:serviceaccount:{}:{}", subject.namespace, subject.name);
        Some(User::authenticated(name, subject.uid, groups))
    }
}

fn parse_line(line: &str) -> Option<(String, User)> {
    let mut parts = line.splitn(4, ',').map(str::trim);
    let (token, name, uid) = (parts.next()?, parts.next()?, parts.next()?);
    if token.is_empty() || name.is_empty() {
        return None;
    }
    let groups = parts.next().unwrap_or_default().trim_matches('"');
    let groups =
        groups.split(',').map(str::trim).filter(|g| !g.is_empty()).map(str::to_owned).collect();
    Some((token.to_owned(), User::authenticated(name.to_owned(), uid.to_owned(), groups)))
}

fn certificate_user(der: &[u8]) -> Option<User> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let groups =
        subject.iter_organization().filter_map(|o| o.as_str().ok().map(str::to_owned)).collect();
    Some(User::authenticated(name, String::new(), groups))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_lines_are_read_as_the_original_reads_them() {
        let (token, user) = parse_line("abc,jane,u1,\"dev,ops\"").unwrap();
        assert_eq!(token, "abc");
        assert_eq!(user.groups, ["dev", "ops", "system:authenticated"]);
        assert!(parse_line("abc").is_none());
        assert!(parse_line(",x,y").is_none());
    }
}

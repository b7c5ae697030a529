//! Registry credentials out of `imagePullSecrets`.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flotilla_proto::cri::runtime::v1::AuthConfig;
use serde::Deserialize;

#[derive(Deserialize, Default)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    username: String,
    password: String,
    auth: String,
    identitytoken: String,
}

/// Credentials in `secret` (`.dockerconfigjson` or `.dockercfg`) that fit the image's registry, the longest
/// match first.
pub fn matching(secret: &BTreeMap<String, Vec<u8>>, image: &str) -> Vec<AuthConfig> {
    let auths = if let Some(data) = secret.get(".dockerconfigjson") {
        serde_json::from_slice::<DockerConfig>(data).unwrap_or_default().auths
    } else {
        secret
            .get(".dockercfg")
            .and_then(|data| serde_json::from_slice(data).ok())
            .unwrap_or_default()
    };
    let mut found: Vec<(usize, AuthConfig)> = auths
        .into_iter()
        .filter(|(server, _)| fits(server, image))
        .filter_map(|(server, entry)| Some((server.len(), auth(server, entry)?)))
        .collect();
    found.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    found.into_iter().map(|(_, auth)| auth).collect()
}

fn auth(server: String, entry: Entry) -> Option<AuthConfig> {
    let (mut username, mut password) = (entry.username, entry.password);
    if username.is_empty() && !entry.auth.is_empty() {
        let text = String::from_utf8(STANDARD.decode(entry.auth.trim()).ok()?).ok()?;
        let (user, secret) = text.split_once(':')?;
        (username, password) = (user.to_owned(), secret.to_owned());
    }
    Some(AuthConfig {
        username,
        password,
        identity_token: entry.identitytoken,
        server_address: server,
        ..AuthConfig::default()
    })
}

fn fits(server: &str, image: &str) -> bool {
    let bare =
        server.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let bare = bare.strip_suffix("/v1").or(bare.strip_suffix("/v2")).unwrap_or(bare);
    let bare = if bare == "index.docker.io" { "docker.io" } else { bare };
    let (host, _) = image.split_once('/').unwrap_or(("", image));
    let full = if host.contains(['.', ':']) || host == "localhost" {
        image.to_owned()
    } else {
        format!("docker.io/{image}")
    };
    full.strip_prefix(bare).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', ':', '@']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_found_by_registry() {
        let config = r#"{"auths": {"https://index.docker.io/v1/": {"auth": "dTpwOng="}, "r.local:5000": {"username": "a", "password": "b"}, "r.local:5000/team": {"username": "t"}}}"#;
        let secret: BTreeMap<String, Vec<u8>> =
            [(".dockerconfigjson".to_owned(), config.as_bytes().to_vec())].into();
        let get = |image: &str| {
            matching(&secret, image)
                .into_iter()
                .map(|a| format!("{}:{}", a.username, a.password))
                .collect::<Vec<_>>()
        };
        assert_eq!(get("nginx"), ["u:p:x"]);
        assert_eq!(get("r.local:5000/x:1"), ["a:b"]);
        assert_eq!(get("r.local:5000/team/x"), ["t:", "a:b"]);
        assert!(get("r.local:50001/x").is_empty() && get("other.io/x").is_empty());
    }
}

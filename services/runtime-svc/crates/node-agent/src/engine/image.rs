//! Image references and pull policies.

const MAX_REFERENCE: usize = 4096;

/// When an image is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullPolicy {
    /// Before each start.
    Always,
    /// When the node lacks it.
    IfNotPresent,
    /// Never.
    Never,
}

/// The policy of a container: as written, else by tag (`latest` and no tag: always).
pub fn pull_policy(written: &str, image: &str) -> PullPolicy {
    match written {
        "Always" => PullPolicy::Always,
        "Never" => PullPolicy::Never,
        "IfNotPresent" => PullPolicy::IfNotPresent,
        _ if image.contains('@') => PullPolicy::IfNotPresent,
        _ => match tag(image) {
            None | Some("latest") => PullPolicy::Always,
            Some(_) => PullPolicy::IfNotPresent,
        },
    }
}

fn tag(image: &str) -> Option<&str> {
    let (_, last) = image.rsplit_once('/').unwrap_or(("", image));
    last.split_once(':').map(|(_, tag)| tag)
}

/// The reference a runtime understands: with a tag when neither tag nor digest is written. `None` when the
/// text is no reference.
pub fn normalise(image: &str) -> Option<String> {
    if image.len() > MAX_REFERENCE {
        return None;
    }
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    if let Some(digest) = digest {
        let (algorithm, hex) = digest.split_once(':')?;
        let is_hex = hex.len() >= 32
            && hex.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase());
        if algorithm.is_empty() || !is_hex {
            return None;
        }
    }
    let (path, tag) = match tag(name) {
        Some(tag) => (&name[..name.len() - tag.len() - 1], Some(tag)),
        None => (name, None),
    };
    if let Some(tag) = tag {
        let ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        if tag.is_empty() || tag.len() > 128 || tag.starts_with(['.', '-']) || !tag.bytes().all(ok)
        {
            return None;
        }
    }
    if !is_path(path) {
        return None;
    }
    Some(if tag.is_none() && digest.is_none() {
        format!("{image}:latest")
    } else {
        image.to_owned()
    })
}

fn is_path(path: &str) -> bool {
    let (host, rest) = match path.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => {
            (Some(host), rest)
        }
        _ => (None, path),
    };
    let ok =
        |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'.' | b'-');
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let host_ok = host.is_none_or(|host| {
        host.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[')
            && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]".contains(&b))
    });
    host_ok
        && rest.split('/').all(|part| {
            let bytes = part.as_bytes();
            edge(bytes.first()) && edge(bytes.last()) && part.bytes().all(ok)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policy_follows_the_tag() {
        assert_eq!(pull_policy("", "nginx"), PullPolicy::Always);
        assert_eq!(pull_policy("", "nginx:latest"), PullPolicy::Always);
        assert_eq!(pull_policy("", "127.0.0.1:5000/nginx"), PullPolicy::Always);
        assert_eq!(pull_policy("", "127.0.0.1:5000/nginx:1"), PullPolicy::IfNotPresent);
        assert_eq!(pull_policy("Never", "nginx"), PullPolicy::Never);
    }

    #[test]
    fn bad_references_are_refused() {
        assert_eq!(normalise("nginx").as_deref(), Some("nginx:latest"));
        assert_eq!(normalise("localhost:5000/a/b").as_deref(), Some("localhost:5000/a/b:latest"));
        let digest = format!("a@sha256:{}", "0".repeat(64));
        assert_eq!(normalise(&digest), Some(digest.clone()));
        for bad in [
            "",
            "A",
            "a b",
            "a:",
            "a:.x",
            "a//b",
            "-a",
            "a@sha256:xyz",
            "a@",
            "/a",
            "a/",
            ":5000/a",
            "http://x/y",
        ] {
            assert_eq!(normalise(bad), None, "{bad:?}");
        }
    }
}

//! Names of images: repository names of the registry, and full references as people write them.
//!
//! Grammar: distribution-spec "Pulling manifests" (name, tag) and distribution/reference (domain, digest).

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::Digest;

/// Host that a name without one means.
pub const DEFAULT_DOMAIN: &str = "docker.io";
const MAX_NAME: usize = 255;

/// Why a text is no image reference.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{text:?} is no image name: {reason}")]
pub struct ReferenceError {
    text: String,
    reason: &'static str,
}

/// A full image reference: `docker.io/library/busybox:latest`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    /// Host and port of the registry.
    pub domain: String,
    /// Repository path, `library/busybox`.
    pub path: String,
    /// Tag, when one is given and when neither tag nor digest is given (`latest`).
    pub tag: Option<String>,
    /// Digest, when one is given.
    pub digest: Option<Digest>,
}

/// Whether `name` is a repository name: path components of `[a-z0-9]+` joined by `.`, `_`, `__` or dashes.
pub fn valid_name(name: &str) -> bool {
    name.len() <= MAX_NAME && !name.is_empty() && name.split('/').all(valid_component)
}

fn valid_component(part: &str) -> bool {
    let bytes = part.as_bytes();
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return false };
    if !alnum(first) || !alnum(last) {
        return false;
    }
    let mut rest = bytes;
    while let Some(&b) = rest.first() {
        let run = rest.iter().take_while(|&&c| c == b && !alnum(c)).count();
        let ok = alnum(b) || b == b'-' || (b == b'.' && run == 1) || (b == b'_' && run <= 2);
        if !ok {
            return false;
        }
        rest = &rest[run.max(1)..];
        // After a separator run only a letter or digit may follow.
        if run > 0 && !rest.first().is_some_and(|&c| alnum(c)) {
            return false;
        }
    }
    true
}

/// Whether `tag` is a tag: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
pub fn valid_tag(tag: &str) -> bool {
    let bytes = tag.as_bytes();
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=128).contains(&bytes.len())
        && word(bytes[0])
        && bytes.iter().all(|&b| word(b) || b == b'.' || b == b'-')
}

impl Reference {
    /// Repository with host: `docker.io/library/busybox`.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The same repository with another digest and no tag.
    pub fn with_digest(&self, digest: &Digest) -> Self {
        Self {
            domain: self.domain.clone(),
            path: self.path.clone(),
            tag: None,
            digest: Some(digest.clone()),
        }
    }

    /// What a registry is asked for: the digest when there is one, else the tag.
    pub fn target(&self) -> &str {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.as_str(),
            (None, Some(tag)) => tag,
            (None, None) => "latest",
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let fail = |reason| ReferenceError { text: text.chars().take(300).collect(), reason };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                (rest, Some(digest.parse().map_err(|_| fail("its digest is malformed"))?))
            }
            None => (text, None),
        };
        let colon = rest.rfind(':').filter(|&at| !rest[at..].contains('/'));
        let (name, tag) = match colon {
            Some(at) => (&rest[..at], Some(&rest[at + 1..])),
            None => (rest, None),
        };
        if tag.is_some_and(|tag| !valid_tag(tag)) {
            return Err(fail("its tag is malformed"));
        }
        let (domain, path) = match name.split_once('/') {
            Some((host, path)) if is_domain(host) => (host, path.to_owned()),
            _ => (DEFAULT_DOMAIN, name.to_owned()),
        };
        let domain = if domain == "index.docker.io" { DEFAULT_DOMAIN } else { domain };
        let path = if domain == DEFAULT_DOMAIN && !path.contains('/') {
            format!("library/{path}")
        } else {
            path
        };
        if name.is_empty() || !valid_name(&path) {
            return Err(fail(
                "a repository is lower-case letters, digits and single . _ - / between them",
            ));
        }
        let tag = match (&digest, tag) {
            (None, None) => Some("latest".to_owned()),
            (_, tag) => tag.map(str::to_owned),
        };
        Ok(Self { domain: domain.to_owned(), path, tag, digest })
    }
}

fn is_domain(host: &str) -> bool {
    let marked = host.contains(['.', ':']) || host == "localhost";
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']');
    // A name of dots alone is a path, not a host.
    let solid = host.starts_with('[') || host.split(['.', ':']).all(|part| !part.is_empty());
    marked && solid && host.bytes().all(plain)
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.path)?;
        match (&self.tag, &self.digest) {
            (_, Some(digest)) => write!(f, "@{digest}"),
            (Some(tag), None) => write!(f, ":{tag}"),
            (None, None) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_normalised() {
        for (text, want) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("me/app:v1", "docker.io/me/app:v1"),
            ("localhost/app", "localhost/app:latest"),
            ("127.0.0.1:5000/a/b:t", "127.0.0.1:5000/a/b:t"),
            ("index.docker.io/library/x", "docker.io/library/x:latest"),
            ("registry.k8s.io/pause:3.9", "registry.k8s.io/pause:3.9"),
        ] {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), want, "{text}");
        }
        let digest = Digest::sha256(b"x");
        let both: Reference = format!("a.b/c:t@{digest}").parse().unwrap();
        assert_eq!(both.to_string(), format!("a.b/c@{digest}"));
        assert_eq!(both.tag.as_deref(), Some("t"));
    }

    #[test]
    fn bad_names_are_refused() {
        let long = "a".repeat(256);
        for text in [
            "",
            "A/b",
            "a//b",
            "a:",
            "a:b c",
            "a@sha256:x",
            "-a",
            "a..b",
            "a___b",
            "../x",
            &long,
            "a/_b",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text:?} was accepted");
        }
        for name in ["a", "a__b", "a-b", "a--b", "a.b/c_d"] {
            assert!(valid_name(name), "{name} was refused");
        }
        assert!(!valid_tag(&"t".repeat(129)) && valid_tag("_x.Y-z"));
    }
}

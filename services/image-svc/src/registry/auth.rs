//! Basic authentication against an htpasswd file with bcrypt entries, as distribution's `auth.htpasswd`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, header};
use parking_lot::Mutex;
use thiserror::Error;
use tokio::time::Instant;

use super::{Code, RegistryError};
use crate::engine::Digest;

/// How long a password that was right need not be checked again: bcrypt takes 50 ms and more.
const REMEMBERED: Duration = Duration::from_secs(300);
/// Remembered passwords at most.
const MAX_REMEMBERED: usize = 10_000;
/// Checked for names that do not exist, so that these take as long as wrong passwords.
const NOBODY: &str = "$2y$05$abcdefghijklmnopqrstuuBUyVsVQFkVwhJeQ/Xp9ZSZLrwvB/9mG";

/// Why an htpasswd file does not serve.
#[derive(Debug, Error)]
#[error("auth.htpasswd.path {path}: {reason}")]
pub struct AuthError {
    path: PathBuf,
    reason: String,
}

#[derive(Debug, Default)]
struct Entries {
    stamp: Option<SystemTime>,
    hashes: HashMap<String, String>,
}

/// An htpasswd file, read again when it changes.
#[derive(Debug)]
pub struct Htpasswd {
    realm: String,
    path: PathBuf,
    entries: Mutex<Entries>,
    /// Digest of name, password and hash -> when it was checked.
    remembered: Mutex<HashMap<Digest, Instant>>,
}

impl Htpasswd {
    /// Reads the file.
    ///
    /// # Errors
    /// When it cannot be read or holds an entry that is not bcrypt.
    pub fn load(realm: String, path: PathBuf) -> Result<Self, AuthError> {
        let entries = read(&path)?;
        Ok(Self { realm, path, entries: Mutex::new(entries), remembered: Mutex::default() })
    }

    /// Lets a request in whose `Authorization` names a user of the file.
    ///
    /// # Errors
    /// `UNAUTHORIZED` with a challenge.
    pub async fn check(&self, authorization: Option<&HeaderValue>) -> Result<(), RegistryError> {
        let given = authorization.and_then(|value| value.to_str().ok()).and_then(credentials);
        let Some((user, password)) = given else { return Err(self.challenge()) };
        let known = self.hash_of(&user);
        let hash = known.clone().unwrap_or_else(|| NOBODY.to_owned());
        let key = Digest::sha256(format!("{user}\0{password}\0{hash}").as_bytes());
        if self.remembered.lock().get(&key).is_some_and(|at| at.elapsed() < REMEMBERED) {
            return Ok(());
        }
        let verify =
            tokio::task::spawn_blocking(move || bcrypt::verify(password, &hash).unwrap_or(false));
        if !verify.await.unwrap_or(false) || known.is_none() {
            return Err(self.challenge());
        }
        let mut remembered = self.remembered.lock();
        if remembered.len() >= MAX_REMEMBERED {
            remembered.clear();
        }
        remembered.insert(key, Instant::now());
        Ok(())
    }

    fn hash_of(&self, user: &str) -> Option<String> {
        let mut entries = self.entries.lock();
        if changed_at(&self.path) != entries.stamp {
            match read(&self.path) {
                Ok(fresh) => *entries = fresh,
                Err(error) => tracing::warn!(%error, "the old htpasswd entries stay in use"),
            }
        }
        entries.hashes.get(user).cloned()
    }

    fn challenge(&self) -> RegistryError {
        let value = format!("Basic realm=\"{}\"", self.realm.replace(['"', '\\'], ""));
        let value =
            HeaderValue::try_from(value).unwrap_or_else(|_| HeaderValue::from_static("Basic"));
        RegistryError::new(Code::Unauthorized, "authentication required")
            .with_header(header::WWW_AUTHENTICATE, value)
    }
}

fn credentials(header: &str) -> Option<(String, String)> {
    let (scheme, token) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(token.trim()).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

fn changed_at(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|meta| meta.modified()).ok()
}

fn read(path: &Path) -> Result<Entries, AuthError> {
    let fail = |reason: String| AuthError { path: path.to_owned(), reason };
    let stamp = changed_at(path);
    let text = std::fs::read_to_string(path).map_err(|error| fail(error.to_string()))?;
    let mut hashes = HashMap::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let entry = line.split_once(':').filter(|(_, hash)| hash.starts_with("$2"));
        let (user, hash) = entry.ok_or_else(|| {
            fail(format!("line {} is no bcrypt entry; make it with htpasswd -B", number + 1))
        })?;
        hashes.insert(user.to_owned(), hash.to_owned());
    }
    Ok(Entries { stamp, hashes })
}

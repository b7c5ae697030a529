//! Requests that wait for their client, by token.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use parking_lot::Mutex;
use rand::RngCore;

use crate::engine::error::{Error, Result};

/// Requests that may wait at once.
const MAX_WAITING: usize = 1000;
/// How long a token is good for.
const TIME_TO_LIVE: Duration = Duration::from_secs(60);

/// What a client may open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Session {
    /// A process in a container.
    Exec {
        container: String,
        command: Vec<String>,
        tty: bool,
        stdin: bool,
        stdout: bool,
        stderr: bool,
    },
    /// A container's first process.
    Attach { container: String, tty: bool, stdin: bool, stdout: bool, stderr: bool },
    /// Ports of a pod; all when empty.
    PortForward { sandbox: String, ports: Vec<u16> },
}

/// The waiting requests. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Sessions(Arc<Mutex<HashMap<String, (Instant, Session)>>>);

impl Sessions {
    /// Keeps a request and returns its token.
    pub(super) fn put(&self, session: Session) -> Result<String> {
        let mut waiting = self.0.lock();
        waiting.retain(|_, (since, _)| since.elapsed() < TIME_TO_LIVE);
        if waiting.len() >= MAX_WAITING {
            return Err(Error::Unavailable(format!(
                "{MAX_WAITING} streams wait for their client; try again in a minute"
            )));
        }
        let mut bytes = [0; 6];
        let token = loop {
            rand::rng().fill_bytes(&mut bytes);
            let token = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
            if !waiting.contains_key(&token) {
                break token;
            }
        };
        waiting.insert(token.clone(), (Instant::now(), session));
        Ok(token)
    }

    /// Takes a request; a token works once.
    pub(super) fn take(&self, token: &str) -> Option<Session> {
        let (since, session) = self.0.lock().remove(token)?;
        (since.elapsed() < TIME_TO_LIVE).then_some(session)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_works_once_and_waiting_is_bounded() {
        let sessions = Sessions::default();
        let session = Session::PortForward { sandbox: "s".into(), ports: vec![80] };
        let token = sessions.put(session.clone()).unwrap();
        assert_eq!(
            (token.len(), sessions.take(&token), sessions.take(&token)),
            (8, Some(session.clone()), None)
        );
        for _ in 0..MAX_WAITING {
            sessions.put(session.clone()).unwrap();
        }
        assert!(sessions.put(session).is_err());
    }
}

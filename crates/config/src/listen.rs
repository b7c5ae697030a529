//! Addresses a service listens on, in the spellings the originals use.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;

/// A TCP or unix socket address. Port 0 asks the kernel for a free port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ListenAddr {
    /// `IP:PORT`; a missing IP (`:9090`) means every interface.
    Tcp(SocketAddr),
    /// `unix:///path` or `unix:path`.
    Unix(PathBuf),
}

/// Why a text is no listen address.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "{text:?} is not an address to listen on: write IP:PORT, :PORT, http://IP:PORT or unix:///path"
)]
pub struct ParseListenError {
    text: String,
}

impl FromStr for ListenAddr {
    type Err = ParseListenError;

    fn from_str(text: &str) -> Result<Self, ParseListenError> {
        let fail = || ParseListenError { text: text.to_owned() };
        if let Some(path) = text.strip_prefix("unix://").or_else(|| text.strip_prefix("unix:")) {
            return if path.is_empty() { Err(fail()) } else { Ok(Self::Unix(path.into())) };
        }
        let bare = ["http://", "https://", "tcp://"]
            .iter()
            .find_map(|scheme| text.strip_prefix(scheme))
            .unwrap_or(text);
        let bare = bare.trim_end_matches('/');
        if let Some(port) = bare.strip_prefix(':') {
            let port = port.parse().map_err(|_| fail())?;
            return Ok(Self::Tcp(SocketAddr::new(IpAddr::from([0, 0, 0, 0]), port)));
        }
        let named = bare.replace("localhost:", "127.0.0.1:");
        named.parse().map(Self::Tcp).map_err(|_| fail())
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_spellings_are_read() {
        for (text, want) in [
            (":9090", "0.0.0.0:9090"),
            ("http://127.0.0.1:2379", "127.0.0.1:2379"),
            ("localhost:8181", "127.0.0.1:8181"),
            ("[::1]:53", "[::1]:53"),
            ("unix:///run/x.sock", "unix:///run/x.sock"),
            ("unix:run/x.sock", "unix://run/x.sock"),
        ] {
            assert_eq!(text.parse::<ListenAddr>().unwrap().to_string(), want);
        }
        for text in ["", ":", "host", "unix://", "1.2.3.4", ":70000"] {
            assert!(text.parse::<ListenAddr>().is_err(), "{text:?} was accepted");
        }
    }
}

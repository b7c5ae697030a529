//! Addresses of listeners and endpoints.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use crate::bootstrap::{ConfigError, pb};

/// Where something listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// IP and port.
    Tcp(SocketAddr),
    /// Unix socket.
    Unix(PathBuf),
    /// A name still to be resolved, and the port.
    Name(String, u16),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
        }
    }
}

impl Address {
    /// Reads the API's form. Names are allowed only where they are resolved.
    ///
    /// # Errors
    /// When a part is missing or cannot work.
    pub fn read(
        config: Option<&pb::core::Address>,
        path: &str,
        names: bool,
    ) -> Result<Self, ConfigError> {
        use pb::core::address::Address as Kind;
        match config.and_then(|c| c.address.as_ref()) {
            Some(Kind::Pipe(pipe)) if !pipe.path.is_empty() => {
                if pipe.path.starts_with('@') {
                    return Err(ConfigError::unsupported(format!("{path}.pipe: abstract sockets")));
                }
                Ok(Self::Unix(pipe.path.clone().into()))
            }
            Some(Kind::SocketAddress(socket)) => {
                if socket.protocol != 0 {
                    return Err(ConfigError::unsupported(format!(
                        "{path}.socket_address.protocol: UDP"
                    )));
                }
                let port = match &socket.port_specifier {
                    Some(pb::core::socket_address::PortSpecifier::PortValue(port)) => {
                        u16::try_from(*port).map_err(|_| {
                            ConfigError::invalid(
                                format!("{path}.socket_address.port_value"),
                                "0 to 65535 is allowed",
                            )
                        })?
                    }
                    _ => {
                        return Err(ConfigError::invalid(
                            format!("{path}.socket_address"),
                            "port_value is missing",
                        ));
                    }
                };
                match socket.address.parse::<IpAddr>() {
                    Ok(ip) => Ok(Self::Tcp(SocketAddr::new(ip, port))),
                    Err(_) if names && !socket.address.is_empty() => {
                        Ok(Self::Name(socket.address.clone(), port))
                    }
                    Err(_) => {
                        let reason = format!("malformed IP address: {}", socket.address);
                        Err(ConfigError::invalid(format!("{path}.socket_address.address"), reason))
                    }
                }
            }
            _ => Err(ConfigError::invalid(path, "socket_address or pipe is needed")),
        }
    }
}

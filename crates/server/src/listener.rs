//! TCP and unix socket listeners behind one type.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use flotilla_config::ListenAddr;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// Why an address could not be bound.
#[derive(Debug, Error)]
pub enum BindError {
    /// Another process listens there.
    #[error("{address} is taken{holder}; stop that process or choose another address")]
    InUse {
        /// The address as configured.
        address: String,
        /// ` by NAME (pid N)` when the holder could be found, else empty.
        holder: String,
    },
    /// Ports below 1024 need a capability.
    #[error(
        "binding {address} needs the capability CAP_NET_BIND_SERVICE: run as root or use a port above 1023"
    )]
    Privilege {
        /// The address as configured.
        address: String,
    },
    /// Anything else.
    #[error("cannot listen on {address}: {source}")]
    Other {
        /// The address as configured.
        address: String,
        /// The system's error.
        source: io::Error,
    },
}

/// A bound listener.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// Unix socket; the file is removed when the listener is dropped.
    Unix(UnixListener, SocketFile),
}

/// Removes its socket file when dropped.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Gone already is as good as removed.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Who is at the other end of a connection; found in the request extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerInfo {
    /// Remote TCP address; `None` on unix sockets.
    pub remote: Option<SocketAddr>,
    /// Address the client connected to; `None` on unix sockets.
    pub local: Option<SocketAddr>,
    /// The client's certificate chain (DER, leaf first) when mutual TLS was used.
    pub certificates: Vec<Vec<u8>>,
}

/// Any byte stream that can carry HTTP.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

impl Listener {
    /// Binds `address`. A unix socket file without a listening process behind it is replaced; its folder is made.
    ///
    /// # Errors
    /// Says whether the address is taken (and by whom), needs privilege, or why else it failed.
    pub async fn bind(address: &ListenAddr) -> Result<Self, BindError> {
        let result = match address {
            ListenAddr::Tcp(addr) => TcpListener::bind(addr).await.map(Self::Tcp),
            ListenAddr::Unix(path) => bind_unix(path).await,
        };
        result.map_err(|source| explain(address, source))
    }

    /// The bound address, with the port the kernel chose when 0 was asked for.
    pub fn local_addr(&self) -> io::Result<ListenAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(ListenAddr::Tcp),
            Self::Unix(_, file) => Ok(ListenAddr::Unix(file.0.clone())),
        }
    }

    /// Accepts the next connection.
    pub async fn accept(&self) -> io::Result<(Accepted, PeerInfo)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, remote) = listener.accept().await?;
                stream.set_nodelay(true)?;
                let local = stream.local_addr().ok();
                Ok((
                    Accepted::Tcp(stream),
                    PeerInfo { remote: Some(remote), local, certificates: Vec::new() },
                ))
            }
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                Ok((
                    Accepted::Unix(stream),
                    PeerInfo { remote: None, local: None, certificates: Vec::new() },
                ))
            }
        }
    }
}

/// A connection fresh from `accept`.
#[derive(Debug)]
pub enum Accepted {
    /// TCP.
    Tcp(TcpStream),
    /// Unix socket.
    Unix(UnixStream),
}

impl Accepted {
    /// Erases the transport.
    pub fn boxed(self) -> Box<dyn Connection> {
        match self {
            Self::Tcp(stream) => Box::new(stream),
            Self::Unix(stream) => Box::new(stream),
        }
    }
}

async fn bind_unix(path: &Path) -> io::Result<Listener> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    if is_socket && UnixStream::connect(path).await.is_err() {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(Listener::Unix(listener, SocketFile(path.to_owned())))
}

fn explain(address: &ListenAddr, source: io::Error) -> BindError {
    let name = address.to_string();
    match source.kind() {
        io::ErrorKind::AddrInUse => {
            let holder = match address {
                ListenAddr::Tcp(addr) => {
                    holder_of(addr.port()).map(|h| format!(" by {h}")).unwrap_or_default()
                }
                ListenAddr::Unix(_) => String::new(),
            };
            BindError::InUse { address: name, holder }
        }
        io::ErrorKind::PermissionDenied if matches!(address, ListenAddr::Tcp(a) if a.port() < 1024) => {
            BindError::Privilege { address: name }
        }
        _ => BindError::Other { address: name, source },
    }
}

/// Names the process that listens on a TCP port: the socket's inode in /proc/net/tcp, then whose descriptor it is.
fn holder_of(port: u16) -> Option<String> {
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .find_map(|table| listening_inode(table, port))?;
    let wanted = format!("socket:[{inode}]");
    for entry in std::fs::read_dir("/proc").ok()?.flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let Ok(fds) = std::fs::read_dir(entry.path().join("fd")) else { continue };
        let holds = fds.flatten().any(|fd| {
            std::fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str() == wanted.as_str())
        });
        if holds {
            let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            return Some(format!("{} (pid {pid})", name.trim()));
        }
    }
    None
}

fn listening_inode(table: &str, port: u16) -> Option<String> {
    const LISTEN: &str = "0A";
    let text = std::fs::read_to_string(table).ok()?;
    text.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let local_port = u16::from_str_radix(fields.get(1)?.rsplit(':').next()?, 16).ok()?;
        (local_port == port && fields.get(3) == Some(&LISTEN))
            .then(|| fields.get(9).map(|i| (*i).to_owned()))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn taken_port_names_its_holder() {
        let first = Listener::bind(&"127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = first.local_addr().unwrap();
        let error = Listener::bind(&address).await.unwrap_err().to_string();
        assert!(error.contains(&format!("(pid {})", std::process::id())), "{error}");
    }

    #[tokio::test]
    async fn stale_socket_file_is_replaced_and_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let address = ListenAddr::Unix(dir.path().join("deep/s.sock"));
        let first = Listener::bind(&address).await.unwrap();
        assert!(matches!(Listener::bind(&address).await, Err(BindError::InUse { .. })));
        drop(first);
        std::fs::create_dir_all(dir.path().join("deep")).unwrap();
        drop(std::os::unix::net::UnixListener::bind(dir.path().join("deep/s.sock")).unwrap());
        Listener::bind(&address).await.unwrap();
    }
}

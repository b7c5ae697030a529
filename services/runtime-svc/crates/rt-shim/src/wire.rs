//! Requests, answers and frames on the shim's control socket.
//!
//! A client opens one connection per request: it sends a JSON frame and reads a JSON frame. `Events`, `Exec` and
//! `Attach` keep the connection and go on with further frames. A frame is a kind byte, a little-endian `u32`
//! length and the payload.

use std::io;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::spec::{ContainerSpec, Identity, ProcessSpec};

/// Longest payload either side accepts.
pub const MAX_FRAME: usize = 16 << 20;

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A request, answer or event.
    Json,
    /// Input; an empty payload is the end of it.
    Stdin,
    /// Output.
    Stdout,
    /// Error output.
    Stderr,
    /// Terminal size: columns and rows, two little-endian `u16`.
    Resize,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Json,
            1 => Self::Stdin,
            2 => Self::Stdout,
            3 => Self::Stderr,
            4 => Self::Resize,
            _ => return None,
        })
    }
}

/// What the daemon asks.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// All containers now, then every change.
    Events,
    /// Launch a container.
    Start(Box<ContainerSpec>),
    /// Run a further process in a container.
    Exec {
        /// Container id.
        id: String,
        /// The process.
        process: Box<ProcessSpec>,
        /// Whether input will follow.
        stdin: bool,
    },
    /// Follow a container's output and feed its input.
    Attach {
        /// Container id.
        id: String,
        /// Whether input will follow.
        stdin: bool,
    },
    /// Signal a container.
    Signal {
        /// Container id.
        id: String,
        /// Signal number.
        signal: i32,
        /// Every process, not only the first.
        all: bool,
    },
    /// Open the log file anew.
    ReopenLog {
        /// Container id.
        id: String,
    },
    /// Forget an ended container.
    Forget {
        /// Container id.
        id: String,
    },
    /// Kill everything and end.
    Shutdown,
}

/// What the shim answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Done.
    Ok,
    /// All containers, to `Events`.
    Containers(Vec<ContainerReport>),
    /// The process runs, to `Start` and `Exec`.
    Started {
        /// PID on the host.
        pid: i32,
        /// Who runs it.
        identity: Identity,
    },
    /// The process of an `Exec` ended. Output frames come before it.
    Exited {
        /// Exit code, 128 + n after signal n.
        code: i32,
    },
    /// The request failed.
    Failed(Failure),
}

/// Why a request failed.
#[derive(Debug, Clone, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What kind of failure it is.
    pub kind: FailureKind,
    /// For people.
    pub message: String,
}

/// Kinds of failure the daemon tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// No such container.
    NotFound,
    /// The container does not run.
    NotRunning,
    /// The executable is missing.
    NoExecutable,
    /// The executable may not be run.
    NotExecutable,
    /// Anything else.
    Other,
}

/// State of one container, as the shim knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerReport {
    /// Container id.
    pub id: String,
    /// PID on the host.
    pub pid: i32,
    /// Nanoseconds since the epoch.
    pub started_at: i64,
    /// Who runs it.
    pub identity: Identity,
    /// Set once it ended.
    pub exit: Option<Exit>,
}

/// How a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit code, 128 + n after signal n.
    pub code: i32,
    /// Nanoseconds since the epoch.
    pub at: i64,
    /// The kernel killed a process of the container for lack of memory.
    pub oom: bool,
}

/// Reads one frame; `None` at the end of the stream.
///
/// # Errors
/// When the stream fails or the peer breaks the framing.
pub async fn read_frame<R: AsyncRead + Unpin>(
    reader: &mut R,
) -> io::Result<Option<(Kind, Vec<u8>)>> {
    let mut head = [0; 5];
    match reader.read_exact(&mut head).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let kind = Kind::from_byte(head[0]).ok_or_else(|| broken("unknown kind"))?;
    let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if length > MAX_FRAME {
        return Err(broken("too long"));
    }
    let mut payload = vec![0; length];
    reader.read_exact(&mut payload).await?;
    Ok(Some((kind, payload)))
}

/// Writes one frame.
///
/// # Errors
/// When the stream fails.
pub async fn write_frame<W: AsyncWrite + Unpin>(
    writer: &mut W,
    kind: Kind,
    payload: &[u8],
) -> io::Result<()> {
    let length = u32::try_from(payload.len()).map_err(|_| broken("too long"))?;
    let mut frame = Vec::with_capacity(5 + payload.len());
    frame.push(kind as u8);
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(payload);
    writer.write_all(&frame).await
}

/// Reads one JSON frame; `None` at the end of the stream.
///
/// # Errors
/// When the stream fails or the frame is something else.
pub async fn read_json<T: DeserializeOwned, R: AsyncRead + Unpin>(
    reader: &mut R,
) -> io::Result<Option<T>> {
    match read_frame(reader).await? {
        None => Ok(None),
        Some((Kind::Json, payload)) => Ok(Some(serde_json::from_slice(&payload)?)),
        Some(_) => Err(broken("JSON expected")),
    }
}

/// Writes one JSON frame.
///
/// # Errors
/// When the stream fails.
pub async fn write_json<T: Serialize, W: AsyncWrite + Unpin>(
    writer: &mut W,
    value: &T,
) -> io::Result<()> {
    write_frame(writer, Kind::Json, &serde_json::to_vec(value)?).await
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("broken frame: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_survive_the_wire_and_garbage_is_refused() {
        let mut bytes = Vec::new();
        write_frame(&mut bytes, Kind::Stdout, b"abc").await.unwrap();
        write_json(&mut bytes, &Request::Shutdown).await.unwrap();
        let mut reader = bytes.as_slice();
        assert_eq!(read_frame(&mut reader).await.unwrap(), Some((Kind::Stdout, b"abc".to_vec())));
        assert!(matches!(read_json(&mut reader).await.unwrap(), Some(Request::Shutdown)));
        assert!(read_frame(&mut reader).await.unwrap().is_none());
        for bad in [&[9, 0, 0, 0, 0][..], &[1, 255, 255, 255, 255], &[1, 4, 0, 0, 0, 1]] {
            assert!(read_frame(&mut &*bad).await.is_err(), "{bad:?}");
        }
    }
}

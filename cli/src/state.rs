//! `state.json`: which processes of the suite run, so that other commands find them.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::layout::Ports;

/// What `up` wrote down.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    /// The supervisor.
    pub supervisor: Identity,
    /// Whether everything was ready once.
    pub ready: bool,
    /// The ports in use.
    pub ports: Ports,
    /// Network names, needed to clean up.
    pub bridge_name: String,
    /// The services, in start order.
    pub services: Vec<ServiceState>,
}

/// One service.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServiceState {
    /// Name of the binary.
    pub name: String,
    /// Its process, while it runs.
    pub process: Option<Identity>,
    /// How often it was started again.
    pub restarts: u32,
    /// URL that answers 200 when it is ready.
    pub ready_url: String,
    /// Addresses for people: what it is, and where.
    pub endpoints: Vec<(String, String)>,
}

/// A process, told from a later one with the same pid by its start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Process id.
    pub pid: u32,
    /// Start time in clock ticks since boot, field 22 of /proc/PID/stat.
    pub started: u64,
}

impl Identity {
    /// The process that has `pid` now.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in field 2 may hold spaces; everything after its closing bracket is plain.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        (*fields.first()? != "Z").then_some(())?;
        Some(Self { pid, started: fields.get(19)?.parse().ok()? })
    }

    /// Whether this very process still runs.
    pub fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// How long ago it was started, in seconds.
    pub fn age_seconds(self) -> u64 {
        const TICKS_PER_SECOND: u64 = 100;
        let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
        let uptime: f64 =
            uptime.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or_default();
        (uptime as u64).saturating_sub(self.started / TICKS_PER_SECOND)
    }
}

impl State {
    /// Reads the file; `None` when there is none.
    pub fn load(path: &Path) -> io::Result<Option<Self>> {
        match fs::read(path) {
            Ok(text) => serde_json::from_slice(&text).map(Some).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes the file in one step, so that readers never see half of it.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let partial = path.with_extension("partial");
        fs::write(&partial, serde_json::to_vec_pretty(self).map_err(io::Error::other)?)?;
        fs::rename(partial, path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_process_is_alive_and_an_impostor_is_not() {
        let own = Identity::of(std::process::id()).unwrap();
        assert!(own.is_alive());
        assert!(!Identity { started: own.started + 1, ..own }.is_alive());
    }
}

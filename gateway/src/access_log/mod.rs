//! Access logs: Envoy's format strings and where the lines go.

mod format;
mod sink;

pub use format::{Entry, LogFormat};
pub use sink::{AccessLog, Sinks};

/// Response flags: why a response is not what the upstream sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flags(u32);

/// Bits in the order Envoy prints them, with their names.
const NAMES: &[(u32, &str)] = &[
    (Flags::NO_HEALTHY_UPSTREAM.0, "UH"),
    (Flags::UPSTREAM_CONNECTION_FAILURE.0, "UF"),
    (Flags::UPSTREAM_OVERFLOW.0, "UO"),
    (Flags::NO_ROUTE.0, "NR"),
    (Flags::RETRY_LIMIT.0, "URX"),
    (Flags::NO_CLUSTER.0, "NC"),
    (Flags::DURATION_TIMEOUT.0, "DT"),
    (Flags::DOWNSTREAM_TERMINATION.0, "DC"),
    (Flags::UPSTREAM_TIMEOUT.0, "UT"),
    (Flags::LOCAL_RESET.0, "LR"),
    (Flags::UPSTREAM_RESET.0, "UR"),
    (Flags::UPSTREAM_TERMINATION.0, "UC"),
    (Flags::STREAM_IDLE.0, "SI"),
    (Flags::DOWNSTREAM_PROTOCOL_ERROR.0, "DPE"),
];

#[allow(missing_docs, reason = "named after Envoy's response flags")]
impl Flags {
    pub const NO_HEALTHY_UPSTREAM: Self = Self(1);
    pub const UPSTREAM_CONNECTION_FAILURE: Self = Self(1 << 1);
    pub const UPSTREAM_OVERFLOW: Self = Self(1 << 2);
    pub const NO_ROUTE: Self = Self(1 << 3);
    pub const RETRY_LIMIT: Self = Self(1 << 4);
    pub const NO_CLUSTER: Self = Self(1 << 5);
    pub const DURATION_TIMEOUT: Self = Self(1 << 6);
    pub const DOWNSTREAM_TERMINATION: Self = Self(1 << 7);
    pub const UPSTREAM_TIMEOUT: Self = Self(1 << 8);
    pub const LOCAL_RESET: Self = Self(1 << 9);
    pub const UPSTREAM_RESET: Self = Self(1 << 10);
    pub const UPSTREAM_TERMINATION: Self = Self(1 << 11);
    pub const STREAM_IDLE: Self = Self(1 << 12);
    pub const DOWNSTREAM_PROTOCOL_ERROR: Self = Self(1 << 13);

    /// Adds flags.
    pub fn set(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl std::fmt::Display for Flags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Envoy prints URX before UF.
        let order = [Self::RETRY_LIMIT.0];
        let first = NAMES.iter().filter(|(bit, _)| order.contains(bit));
        let rest = NAMES.iter().filter(|(bit, _)| !order.contains(bit));
        let set: Vec<&str> =
            first.chain(rest).filter(|(bit, _)| self.0 & bit != 0).map(|(_, name)| *name).collect();
        f.write_str(if set.is_empty() { "-" } else { "" })?;
        f.write_str(&set.join(","))
    }
}

//! When a failed attempt is repeated, and how long to wait before.

use std::time::Duration;

use rand::Rng;

/// Why an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No connection could be made.
    Connect,
    /// The connection ended before the response headers.
    Terminated,
    /// The upstream reset the stream before the response headers.
    Reset,
    /// The upstream refused the stream unprocessed.
    Refused,
    /// The attempt took longer than the per-try timeout.
    PerTryTimeout,
    /// A limit of the circuit breaker was reached.
    Overflow,
    /// The upstream answered with this status.
    Status(u16),
    /// The upstream answered a gRPC call with this status in its headers.
    Grpc(u16),
}

/// The parsed `retry_on` list and its limits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RetryPolicy {
    on: u32,
    /// Attempts after the first.
    pub num_retries: u32,
    /// Limit of one attempt.
    pub per_try_timeout: Option<Duration>,
    /// For `retriable-status-codes`.
    pub status_codes: Vec<u16>,
    /// First back-off; 25 ms by default.
    pub base: Duration,
    /// Longest back-off; ten times the base by default.
    pub max: Duration,
}

const CONDITIONS: &[&str] = &[
    "5xx",
    "gateway-error",
    "reset",
    "connect-failure",
    "refused-stream",
    "retriable-4xx",
    "retriable-status-codes",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
    "reset-before-request",
];

impl RetryPolicy {
    /// Parses the comma-separated conditions.
    ///
    /// # Errors
    /// Names the condition that is not known.
    pub fn new(retry_on: &str) -> Result<Self, String> {
        let mut on = 0;
        for name in retry_on.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            let index = CONDITIONS.iter().position(|known| *known == name);
            on |= 1 << index.ok_or_else(|| name.to_owned())?;
        }
        let base = Duration::from_millis(25);
        Ok(Self { on, num_retries: 1, base, max: base * 10, ..Self::default() })
    }

    fn has(&self, name: &str) -> bool {
        CONDITIONS
            .iter()
            .position(|known| *known == name)
            .is_some_and(|index| self.on & (1 << index) != 0)
    }

    /// Whether any condition looks at gRPC statuses.
    pub fn looks_at_grpc(&self) -> bool {
        ["cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable"]
            .iter()
            .any(|n| self.has(n))
    }

    /// Whether `failure` is one the policy repeats.
    pub fn allows(&self, failure: Failure) -> bool {
        let five = self.has("5xx");
        match failure {
            Failure::Connect => {
                five || self.has("gateway-error")
                    || self.has("connect-failure")
                    || self.has("reset")
            }
            Failure::Terminated | Failure::Reset | Failure::PerTryTimeout => {
                five || self.has("gateway-error") || self.has("reset")
            }
            Failure::Refused => {
                five || self.has("gateway-error") || self.has("refused-stream") || self.has("reset")
            }
            Failure::Overflow => false,
            Failure::Status(code) => {
                (five && (500..600).contains(&code))
                    || (self.has("gateway-error") && (502..=504).contains(&code))
                    || (self.has("retriable-4xx") && code == 409)
                    || (self.has("retriable-status-codes") && self.status_codes.contains(&code))
            }
            Failure::Grpc(code) => match code {
                1 => self.has("cancelled"),
                4 => self.has("deadline-exceeded"),
                8 => self.has("resource-exhausted"),
                13 => self.has("internal"),
                14 => self.has("unavailable"),
                _ => false,
            },
        }
    }

    /// Fully jittered exponential back-off before retry number `retry` (1 is the first).
    pub fn backoff(&self, retry: u32) -> Duration {
        let ceiling = self
            .base
            .saturating_mul(2u32.saturating_pow(retry.min(20)).saturating_sub(1))
            .min(self.max);
        ceiling.mul_f64(rand::rng().random::<f64>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_select_failures() {
        let policy = RetryPolicy::new("connect-failure, refused-stream").unwrap();
        assert!(policy.allows(Failure::Connect) && policy.allows(Failure::Refused));
        assert!(!policy.allows(Failure::Status(503)) && !policy.allows(Failure::Terminated));
        let policy = RetryPolicy::new("gateway-error").unwrap();
        assert!(policy.allows(Failure::Status(502)) && !policy.allows(Failure::Status(500)));
        assert!(RetryPolicy::new("unavailable").unwrap().allows(Failure::Grpc(14)));
        assert_eq!(RetryPolicy::new("5xx,whatever"), Err("whatever".to_owned()));
    }

    #[test]
    fn backoff_stays_below_its_ceiling() {
        let policy = RetryPolicy::new("5xx").unwrap();
        for retry in 1..40 {
            assert!(policy.backoff(retry) <= Duration::from_millis(250));
        }
        assert!(policy.backoff(1) <= Duration::from_millis(25));
    }
}

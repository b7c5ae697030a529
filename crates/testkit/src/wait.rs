//! Waiting on conditions.

use std::time::{Duration, Instant};

/// Polls `condition` until it is true.
///
/// # Panics
/// When `limit` passes first; the message names `what`.
pub fn eventually(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

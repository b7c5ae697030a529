//! The `loop` plugin: a question nobody else can know comes back if forwarding runs in a circle.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::Client;
use crate::wire::types::HINFO;
use crate::wire::{Name, Query};

/// How often the question is seen before that is a loop: once is the test itself.
const TOLERATED: u32 = 2;

/// Watches for its own question.
#[derive(Debug)]
pub struct LoopGuard {
    zone: Name,
    /// The question: two random labels below the zone.
    pub question: Name,
    seen: AtomicU32,
    off: AtomicBool,
    found: OnceLock<SocketAddr>,
}

impl LoopGuard {
    /// A guard for a zone, with a question from the system's random numbers.
    pub fn new(zone: &Name) -> Self {
        let random = || (rand::random::<u64>() >> 1).to_string();
        let question = zone
            .child(&random())
            .and_then(|name| name.child(&random()))
            .unwrap_or_else(|_| zone.clone());
        Self {
            zone: zone.clone(),
            question,
            seen: AtomicU32::new(0),
            off: AtomicBool::new(false),
            found: OnceLock::new(),
        }
    }

    /// Counts the question.
    pub fn watch(&self, query: &Query, client: &Client) {
        if query.qtype != HINFO || self.is_off() || query.name != self.question {
            return;
        }
        if self.seen.fetch_add(1, Ordering::Relaxed) >= TOLERATED {
            self.found.get_or_init(|| client.remote);
        }
    }

    /// Forgets what was counted; the test did not get through.
    pub fn reset(&self) {
        self.seen.store(0, Ordering::Relaxed);
    }

    /// The test is over.
    pub fn set_off(&self) {
        self.off.store(true, Ordering::Relaxed);
    }

    /// Whether the test is over.
    pub fn is_off(&self) -> bool {
        self.off.load(Ordering::Relaxed)
    }

    /// Whether there is a loop.
    pub fn is_found(&self) -> bool {
        self.found.get().is_some()
    }

    /// CoreDNS's words.
    pub fn report(&self) -> String {
        let from = self.found.get().map(ToString::to_string).unwrap_or_default();
        format!(
            "plugin/loop: Loop ({from}) detected for zone {:?}, see https://coredns.io/plugins/loop#troubleshooting. \
             Query: \"HINFO {}\"",
            self.zone.to_string(),
            self.question
        )
    }
}

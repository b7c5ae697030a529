//! Counters, gauges and histograms under Envoy's names.
//!
//! A scope is a struct of atomics; `visit` names them. Names become the flat form of `/stats` and the labelled form of
//! `/stats/prometheus` in [`render`]. Nothing here decides what is counted.

mod histogram;
mod render;
mod scopes;

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

pub use histogram::Histogram;
pub use render::{Filter, Format, render};
pub use scopes::{AdsStats, ClusterScope, HttpStats, ListenerStats, Registry, TcpStats};

/// Only goes up.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Current value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Back to zero (`/reset_counters`).
    pub fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// Goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Adds one.
    pub fn inc(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes one away.
    pub fn dec(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// Sets the value.
    pub fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Current value.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Adds one unless the value is `limit` already.
    pub fn try_inc(&self, limit: u32) -> bool {
        let limit = i64::from(limit);
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| {
                (now < limit).then_some(now + 1)
            })
            .is_ok()
    }
}

/// One value under its flat name.
#[derive(Debug)]
pub enum Stat<'a> {
    /// A counter.
    Counter(&'a Counter),
    /// A gauge.
    Gauge(i64),
    /// A histogram.
    Histogram(&'a Histogram),
}

macro_rules! scope {
    ($(#[$doc:meta])* $name:ident { counters: $($counter:ident)*; gauges: $($gauge:ident)*; histograms: $($histogram:ident)*; }) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        #[allow(missing_docs, reason = "the fields are Envoy's stat names")]
        pub struct $name {
            $(pub $counter: $crate::stats::Counter,)*
            $(pub $gauge: $crate::stats::Gauge,)*
            $(pub $histogram: $crate::stats::Histogram,)*
        }
        impl $name {
            /// Calls `f` with every stat and its name within the scope.
            pub fn visit(&self, f: &mut dyn FnMut(&str, $crate::stats::Stat<'_>)) {
                $(f(stringify!($counter), $crate::stats::Stat::Counter(&self.$counter));)*
                $(f(stringify!($gauge), $crate::stats::Stat::Gauge(self.$gauge.get()));)*
                $(f(stringify!($histogram), $crate::stats::Stat::Histogram(&self.$histogram));)*
            }
        }
    };
}
pub(crate) use scope;

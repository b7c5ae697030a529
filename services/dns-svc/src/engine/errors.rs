//! The `errors` plugin: failures in the log, the frequent ones summed up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use regex::Regex;
use tracing::Level;

/// `consolidate DURATION REGEXP [LEVEL] [show_first]`
#[derive(Debug, Clone)]
pub struct Consolidate {
    /// Over which time errors are summed up.
    pub period: Duration,
    /// Which errors.
    pub pattern: Regex,
    /// Level of the line that sums up.
    pub level: Level,
    /// Whether the first one is shown at once.
    pub show_first: bool,
}

#[derive(Debug)]
struct Group {
    rule: Consolidate,
    count: AtomicU32,
}

/// The plugin.
#[derive(Debug)]
pub struct Errors {
    groups: Vec<Arc<Group>>,
}

impl Errors {
    /// With these rules; the first that matches an error takes it.
    pub fn new(rules: Vec<Consolidate>) -> Self {
        let groups = rules.into_iter().map(|rule| Group { rule, count: AtomicU32::new(0) });
        Self { groups: groups.map(Arc::new).collect() }
    }

    /// Logs an error of a query, now or in a sum. `text` is the error alone, `line` is what is shown of it.
    pub fn report(&self, text: &str, line: &str) {
        let Some(group) = self.groups.iter().find(|group| group.rule.pattern.is_match(text)) else {
            log_at(Level::ERROR, line);
            return;
        };
        if group.count.fetch_add(1, Ordering::Relaxed) > 0 {
            return;
        }
        if group.rule.show_first {
            log_at(group.rule.level, line);
        }
        let group = group.clone();
        tokio::spawn(async move {
            tokio::time::sleep(group.rule.period).await;
            let count = group.count.swap(0, Ordering::Relaxed);
            if count > 1 || !group.rule.show_first {
                let (pattern, period) = (&group.rule.pattern, go_duration(group.rule.period));
                log_at(
                    group.rule.level,
                    &format!("{count} errors like '{pattern}' occurred in last {period}"),
                );
            }
        });
    }
}

fn log_at(level: Level, line: &str) {
    match level {
        Level::ERROR => tracing::error!("plugin/errors: {line}"),
        Level::WARN => tracing::warn!("plugin/errors: {line}"),
        Level::INFO => tracing::info!("plugin/errors: {line}"),
        _ => tracing::debug!("plugin/errors: {line}"),
    }
}

/// A duration as Go shows it: `1m30s`.
fn go_duration(period: Duration) -> String {
    let (hours, minutes) = (period.as_secs() / 3600, period.as_secs() / 60 % 60);
    let seconds = period.as_secs_f64() - (period.as_secs() / 60 * 60) as f64;
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

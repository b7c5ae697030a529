//! Compacting by itself: keeping a time's or a number of revisions' history.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use flotilla_proto::etcd::etcdserverpb::{CompactionRequest, InternalRaftRequest};
use tokio::time::Instant;

use crate::engine::server::Server;
use crate::error::KvError;

/// How much history is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retention {
    /// All of it.
    Everything,
    /// What happened in this time.
    Time(Duration),
    /// This many revisions.
    Revisions(i64),
}

/// How often revisions are counted.
const COUNT_EVERY: Duration = Duration::from_secs(300);
/// Longest time between two compactions by time.
const LONGEST: Duration = Duration::from_secs(3600);

/// Compacts for as long as the member runs.
pub async fn keep(server: Arc<Server>, retention: Retention) {
    match retention {
        Retention::Everything => {}
        Retention::Time(time) => keep_time(&server, time).await,
        Retention::Revisions(count) => {
            let mut ticks = tokio::time::interval(COUNT_EVERY);
            loop {
                ticks.tick().await;
                compact(&server, server.keyspace().revision() - count).await;
            }
        }
    }
}

async fn keep_time(server: &Server, time: Duration) {
    let every = time.min(LONGEST) / 10;
    let mut seen: VecDeque<(Instant, i64)> = VecDeque::new();
    let mut last = Instant::now();
    let mut ticks = tokio::time::interval(every.max(Duration::from_millis(10)));
    loop {
        ticks.tick().await;
        let now = Instant::now();
        seen.push_back((now, server.keyspace().revision()));
        let mut target = None;
        while seen.front().is_some_and(|(at, _)| *at + time <= now) {
            target = seen.pop_front().map(|(_, revision)| revision);
        }
        if let Some(revision) = target
            && now >= last + time.min(LONGEST)
        {
            last = now;
            compact(server, revision).await;
        }
    }
}

async fn compact(server: &Server, revision: i64) {
    let leads = server.consensus().standing().leader == server.identity().member;
    if !leads || revision <= server.keyspace().state().compacted.max(0) {
        return;
    }
    let compaction = Some(CompactionRequest { revision, physical: false });
    let request = InternalRaftRequest { compaction, ..InternalRaftRequest::default() };
    match server.consensus().propose(request).await {
        Ok(_) => tracing::info!(revision, "compacted the history by itself"),
        Err(KvError::Compacted) => {}
        Err(error) => {
            tracing::warn!(%error, revision, "could not compact the history; trying again")
        }
    }
}

/// Reads `--auto-compaction-mode` and `--auto-compaction-retention`. A time without a unit is in hours.
///
/// # Errors
/// Says which of the two is wrong.
pub fn parse(mode: &str, retention: &str) -> Result<Retention, String> {
    let number: Option<i64> = retention.parse().ok().filter(|number| *number >= 0);
    match (mode, number) {
        ("periodic" | "revision", Some(0)) => Ok(Retention::Everything),
        ("revision", Some(count)) => Ok(Retention::Revisions(count)),
        ("periodic", Some(hours)) => Ok(Retention::Time(
            Duration::from_secs(3600) * u32::try_from(hours).unwrap_or(u32::MAX),
        )),
        ("periodic", None) => flotilla_config::parse_duration(retention)
            .map(|time| if time.is_zero() { Retention::Everything } else { Retention::Time(time) })
            .map_err(|error| format!("--auto-compaction-retention: {error}")),
        ("revision", None) => {
            Err(format!("--auto-compaction-retention: {retention:?} is no number of revisions"))
        }
        _ => Err(format!("--auto-compaction-mode: {mode:?} is neither periodic nor revision")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_modes_are_read() {
        assert_eq!(parse("periodic", "0"), Ok(Retention::Everything));
        assert_eq!(parse("periodic", "2"), Ok(Retention::Time(Duration::from_secs(7200))));
        assert_eq!(parse("periodic", "5m"), Ok(Retention::Time(Duration::from_secs(300))));
        assert_eq!(parse("revision", "1000"), Ok(Retention::Revisions(1000)));
        assert!(parse("revision", "5m").is_err() && parse("never", "1").is_err());
    }
}

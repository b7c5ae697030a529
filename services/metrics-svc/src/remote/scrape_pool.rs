//! One scrape section at work: discovery feeds groups in, loops scrape what comes out.

use std::sync::Arc;
use std::time::Duration;

use metrics_model::Labels;
use metrics_tsdb::Db;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::discovery::{self, Group};
use super::fetch::Fetcher;
use super::scrape_loop::{End, ScrapeLoop};
use super::target::{Relabelled, Target, build};
use crate::config::ScrapeConfig;
use crate::metrics::Metrics;

/// How long changes are collected before the loops are brought in line.
const SETTLE: Duration = Duration::from_millis(100);

/// What the API shows of a pool.
#[derive(Debug, Default)]
pub(super) struct PoolView {
    active: Mutex<Vec<Arc<Target>>>,
    dropped: Mutex<Vec<Labels>>,
}

impl PoolView {
    pub(super) fn active(&self) -> Vec<Arc<Target>> {
        self.active.lock().clone()
    }

    pub(super) fn dropped(&self) -> Vec<Labels> {
        self.dropped.lock().clone()
    }
}

struct Running {
    target: Arc<Target>,
    end: mpsc::Sender<End>,
}

/// A pool; `start` sets it going.
#[derive(Debug)]
pub(super) struct Pool {
    config: Arc<ScrapeConfig>,
    work: Option<Work>,
    view: Arc<PoolView>,
    stop: CancellationToken,
    mark_stale: Arc<std::sync::atomic::AtomicBool>,
    task: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Work {
    config: Arc<ScrapeConfig>,
    fetcher: Fetcher,
    db: Arc<Db>,
    metrics: Arc<Metrics>,
    view: Arc<PoolView>,
    stop: CancellationToken,
    mark_stale: Arc<std::sync::atomic::AtomicBool>,
}

impl Pool {
    pub(super) fn prepare(
        config: ScrapeConfig,
        db: Arc<Db>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, String> {
        let config = Arc::new(config);
        let (view, stop) = (Arc::new(PoolView::default()), CancellationToken::new());
        let mark_stale = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let work = Work {
            fetcher: Fetcher::new(&config)?,
            config: config.clone(),
            db,
            metrics,
            view: view.clone(),
            stop: stop.clone(),
            mark_stale: mark_stale.clone(),
        };
        Ok(Self { config, work: Some(work), view, stop, mark_stale, task: None })
    }

    pub(super) fn start(&mut self) {
        if let Some(work) = self.work.take() {
            self.task = Some(tokio::spawn(work.run()));
        }
    }

    pub(super) fn source(&self) -> &str {
        &self.config.source
    }

    pub(super) fn view(&self) -> Arc<PoolView> {
        self.view.clone()
    }

    /// Ends the pool; with `mark_stale` its series end now.
    pub(super) fn end(self, mark_stale: bool) {
        self.mark_stale.store(mark_stale, std::sync::atomic::Ordering::Release);
        self.stop.cancel();
    }
}

impl Work {
    async fn run(self) {
        let (sender, mut changes) = mpsc::channel(16);
        let providers = discovery::start(&self.config, &sender, &self.stop);
        drop(sender);
        let mut groups: Vec<Vec<Group>> = vec![Vec::new(); providers];
        let mut running: Vec<Running> = Vec::new();
        loop {
            let changed = tokio::select! {
                () = self.stop.cancelled() => break,
                changed = changes.recv() => changed,
            };
            let Some((provider, list)) = changed else {
                self.stop.cancelled().await;
                break;
            };
            groups[provider] = list;
            tokio::time::sleep(SETTLE).await;
            while let Ok((provider, list)) = changes.try_recv() {
                groups[provider] = list;
            }
            self.sync(&groups, &mut running).await;
        }
        let stale = self.mark_stale.load(std::sync::atomic::Ordering::Acquire);
        for one in running {
            // A loop that ended already needs no word.
            let _ = one.end.send(if stale { End::MarkStale } else { End::Quietly }).await;
        }
    }

    async fn sync(&self, groups: &[Vec<Group>], running: &mut Vec<Running>) {
        let (mut wanted, mut dropped): (Vec<Target>, Vec<Labels>) = (Vec::new(), Vec::new());
        for discovered in groups.iter().flatten().flat_map(Group::targets) {
            match build(&self.config, &discovered) {
                Ok(Relabelled::Kept(target)) => {
                    if !wanted.iter().any(|t| t.same_as(&target)) {
                        wanted.push(target);
                    }
                }
                Ok(Relabelled::Dropped(labels)) => dropped.push(labels),
                Err(error) => {
                    tracing::error!(job = self.config.job_name, error, "creating target failed")
                }
            }
        }
        if let Some(keep) = self.config.keep_dropped_targets.filter(|k| *k > 0) {
            dropped.truncate(keep as usize);
        }
        let limit = self.config.target_limit.unwrap_or_default() as usize;
        let over = limit > 0 && wanted.len() > limit;
        let mut kept = Vec::with_capacity(wanted.len());
        for one in running.drain(..) {
            match wanted.iter().position(|t| t.same_as(&one.target)) {
                Some(at) => {
                    wanted.swap_remove(at);
                    kept.push(one);
                }
                None => {
                    let _ = one.end.send(End::MarkStale).await;
                }
            }
        }
        for target in wanted {
            let (end, ends) = mpsc::channel(1);
            let target = Arc::new(target);
            let refusal = over.then(|| {
                format!(
                    "target_limit exceeded (number of targets: {}, limit: {limit})",
                    kept.len() + 1
                )
            });
            let work = ScrapeLoop::new(
                target.clone(),
                self.config.clone(),
                self.fetcher.clone(),
                self.db.clone(),
                self.metrics.clone(),
            );
            tokio::spawn(work.run(ends, refusal));
            kept.push(Running { target, end });
        }
        *running = kept;
        let mut active: Vec<Arc<Target>> = running.iter().map(|r| r.target.clone()).collect();
        active.sort_by(|a, b| a.labels.cmp(&b.labels));
        *self.view.active.lock() = active;
        *self.view.dropped.lock() = dropped;
    }
}

//! Running queries off the network threads, a limited number at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use metrics_promql::{EvalError, Expr, Limits, Query, QueryResult, RangeSeries, Storage};
use tokio::sync::Semaphore;

use crate::metrics::Metrics;

/// Evaluates expressions.
pub struct QueryEngine {
    source: Arc<dyn Storage + Send + Sync>,
    limits: Limits,
    slots: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

impl std::fmt::Debug for QueryEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QueryEngine").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// Tells a query to stop when the one who waits for it goes away.
struct Canceler(Arc<AtomicBool>);

impl Drop for Canceler {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl QueryEngine {
    /// An engine over `source`.
    pub fn new(
        source: Arc<dyn Storage + Send + Sync>,
        limits: Limits,
        concurrency: usize,
        metrics: Arc<Metrics>,
    ) -> Self {
        metrics.queries_limit.set(concurrency as i64);
        Self { source, limits, slots: Arc::new(Semaphore::new(concurrency.max(1))), metrics }
    }

    /// The look-back, in milliseconds.
    pub fn lookback(&self) -> i64 {
        self.limits.lookback
    }

    /// Evaluates at `time` (milliseconds).
    ///
    /// # Errors
    /// Why there is no result.
    pub async fn instant(
        &self,
        expr: Expr,
        time: i64,
        asked: Asked,
    ) -> Result<QueryResult, EvalError> {
        self.run(asked, move |source, limits| metrics_promql::instant(source, &expr, time, limits))
            .await
    }

    /// Evaluates at every step from `start` to `end` (milliseconds).
    ///
    /// # Errors
    /// Why there is no result.
    pub async fn range(
        &self,
        expr: Expr,
        span: (i64, i64, i64),
        asked: Asked,
    ) -> Result<Vec<RangeSeries>, EvalError> {
        let (start, end, step) = span;
        self.run(asked, move |source, limits| {
            metrics_promql::range(source, Query { expr: &expr, start, end, step }, limits)
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        asked: Asked,
        work: impl FnOnce(&dyn Storage, &Limits) -> Result<T, EvalError> + Send + 'static,
    ) -> Result<T, EvalError> {
        let timeout = asked.timeout.map_or(self.limits.timeout, |t| t.min(self.limits.timeout));
        self.metrics.queries_running.inc();
        let result = async {
            let slot = tokio::time::timeout(timeout, self.slots.clone().acquire_owned()).await;
            let Ok(Ok(slot)) = slot else { return Err(EvalError::Timeout) };
            let canceled = Arc::new(AtomicBool::new(false));
            let _canceler = Canceler(canceled.clone());
            let lookback = asked.lookback.unwrap_or(self.limits.lookback);
            let limits = Limits { timeout, lookback, canceled, ..self.limits.clone() };
            let source = self.source.clone();
            let task = tokio::task::spawn_blocking(move || {
                let result = work(source.as_ref(), &limits);
                drop(slot);
                result
            });
            task.await.unwrap_or_else(|e| Err(EvalError::Storage(e.to_string())))
        }
        .await;
        self.metrics.queries_running.dec();
        result
    }
}

/// What a caller may narrow for one query.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked {
    /// Time limit, never more than the server's.
    pub timeout: Option<Duration>,
    /// Look-back in milliseconds.
    pub lookback: Option<i64>,
}

//! Entry points: evaluate at one time or over a range.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use metrics_model::{Labels, Matcher};

use crate::ast::{Expr, ValueType};
use crate::error::EvalError;
use crate::eval::Eval;
use crate::points::raw_matrix;
use crate::value::{RangeSeries, Sample, Value, is_none};

/// A series the storage found.
pub trait StoredSeries {
    /// Its labels.
    fn labels(&self) -> &Labels;

    /// Appends samples between `min` and `max` (milliseconds, both included), in order of time; staleness markers
    /// included.
    ///
    /// # Errors
    /// Why they cannot be read.
    fn samples(
        &self,
        min: i64,
        max: i64,
        times: &mut Vec<i64>,
        values: &mut Vec<f64>,
    ) -> Result<(), String>;
}

/// Where samples come from.
pub trait Storage {
    /// Series that match, sorted by labels.
    ///
    /// # Errors
    /// Why they cannot be found.
    fn select(
        &self,
        min: i64,
        max: i64,
        matchers: &[Matcher],
    ) -> Result<Vec<Box<dyn StoredSeries>>, String>;
}

/// What a query may use.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How far back an instant selector looks, in milliseconds.
    pub lookback: i64,
    /// Samples a query may load.
    pub max_samples: usize,
    /// How long it may take.
    pub timeout: Duration,
    /// Step of subqueries that name none, in milliseconds.
    pub default_step: i64,
    /// Set from outside when nobody waits any more.
    pub canceled: Arc<AtomicBool>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            lookback: 300_000,
            max_samples: 50_000_000,
            timeout: Duration::from_secs(120),
            default_step: 60_000,
            canceled: Arc::default(),
        }
    }
}

/// An expression and the times it is evaluated at.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    /// The expression.
    pub expr: &'a Expr,
    /// First step, milliseconds.
    pub start: i64,
    /// Last step, milliseconds.
    pub end: i64,
    /// Distance of steps, milliseconds.
    pub step: i64,
}

/// The result of a query.
#[derive(Debug, Clone, PartialEq)]
pub enum QueryResult {
    /// One number.
    Scalar(Sample),
    /// Text and its time.
    Text(i64, String),
    /// One sample per series.
    Vector(Vec<(Labels, Sample)>),
    /// Many samples per series.
    Matrix(Vec<RangeSeries>),
}

pub(crate) struct Budget<'a> {
    limits: &'a Limits,
    deadline: Instant,
    samples: Cell<usize>,
}

impl Budget<'_> {
    /// Counts samples, and looks at the clock.
    pub(crate) fn take(&self, samples: usize) -> Result<(), EvalError> {
        self.samples.set(self.samples.get().saturating_add(samples));
        if self.samples.get() > self.limits.max_samples {
            return Err(EvalError::TooManySamples);
        }
        if self.limits.canceled.load(Ordering::Relaxed) {
            return Err(EvalError::Canceled);
        }
        if Instant::now() > self.deadline { Err(EvalError::Timeout) } else { Ok(()) }
    }

    /// Gives samples back whose memory is free again.
    pub(crate) fn release(&self, samples: usize) {
        self.samples.set(self.samples.get().saturating_sub(samples));
    }
}

fn budget(limits: &Limits) -> Budget<'_> {
    Budget { limits, deadline: Instant::now() + limits.timeout, samples: Cell::new(0) }
}

/// Evaluates at one time, in milliseconds.
///
/// # Errors
/// Why there is no result.
pub fn instant(
    storage: &dyn Storage,
    expr: &Expr,
    time: i64,
    limits: &Limits,
) -> Result<QueryResult, EvalError> {
    let budget = budget(limits);
    let eval = Eval::new(storage, &budget, limits, time, time, 1);
    if expr.value_type() == ValueType::Matrix {
        return raw_matrix(&eval, expr.bare()).map(QueryResult::Matrix);
    }
    let ordered = keeps_order(expr.bare());
    Ok(match eval.eval(expr)? {
        Value::Text(text) => QueryResult::Text(time, text),
        Value::Scalar(values) => {
            QueryResult::Scalar(Sample { time, value: values.first().copied().unwrap_or(f64::NAN) })
        }
        Value::Vector(series) => {
            let mut vector: Vec<(Labels, Sample)> = series
                .into_iter()
                .filter_map(|s| Some((s.labels, *s.values.first()?)))
                .filter(|(_, value)| !is_none(*value))
                .map(|(labels, value)| (labels, Sample { time, value }))
                .collect();
            if !ordered {
                vector.sort_by(|a, b| a.0.cmp(&b.0));
            }
            QueryResult::Vector(vector)
        }
    })
}

fn keeps_order(expr: &Expr) -> bool {
    use crate::ast::AggregateOp::{Bottomk, Topk};
    match expr {
        Expr::Call(function, _) => matches!(function.name, "sort" | "sort_desc"),
        Expr::Aggregate(a) => matches!(a.op, Topk | Bottomk),
        _ => false,
    }
}

/// Evaluates at every step of a range; the series are sorted by labels.
///
/// # Errors
/// Why there is no result.
pub fn range(
    storage: &dyn Storage,
    query: Query<'_>,
    limits: &Limits,
) -> Result<Vec<RangeSeries>, EvalError> {
    if !matches!(query.expr.value_type(), ValueType::Scalar | ValueType::Vector) {
        return Err(EvalError::execution(format!(
            "invalid expression type \"{}\" for range query, must be Scalar or instant Vector",
            query.expr.value_type().described()
        )));
    }
    let budget = budget(limits);
    let eval = Eval::new(storage, &budget, limits, query.start, query.end, query.step);
    let mut series = eval.eval(query.expr)?.into_vector();
    series.sort_by(|a, b| a.labels.cmp(&b.labels));
    let mut out = Vec::with_capacity(series.len());
    for one in series {
        let samples: Vec<Sample> = one
            .values
            .iter()
            .enumerate()
            .filter(|(_, value)| !is_none(**value))
            .map(|(at, value)| Sample { time: query.start + at as i64 * query.step, value: *value })
            .collect();
        if !samples.is_empty() {
            out.push(RangeSeries { labels: one.labels, samples });
        }
    }
    Ok(out)
}

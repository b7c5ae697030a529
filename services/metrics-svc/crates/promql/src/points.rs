//! Range vectors: decoded series and the windows a function sees.

use metrics_model::{Labels, is_stale};

use crate::ast::{Expr, Selector, Subquery};
use crate::error::EvalError;
use crate::eval::Eval;
use crate::value::{RangeSeries, Sample, is_none};

/// What a range function sees of one series at one step. The window is open to the left.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window<'a> {
    pub(crate) times: &'a [i64],
    pub(crate) values: &'a [f64],
    /// Bounds of the window in milliseconds.
    pub(crate) start: i64,
    pub(crate) end: i64,
}

struct Span {
    range: i64,
    offset: i64,
    fixed: Option<i64>,
}

impl Span {
    fn end(&self, eval: &Eval<'_>, step: usize) -> i64 {
        self.fixed.unwrap_or_else(|| eval.time(step)) - self.offset
    }
}

/// Calls `visit` with the samples of each series of a range vector, and a function that finds the window of a step.
pub(crate) fn each_series(
    eval: &Eval<'_>,
    expr: &Expr,
    mut visit: impl FnMut(
        &Labels,
        &mut dyn FnMut(
            &mut dyn FnMut(usize, Window<'_>) -> Result<(), EvalError>,
        ) -> Result<(), EvalError>,
    ) -> Result<(), EvalError>,
) -> Result<(), EvalError> {
    let mut each = |labels: &Labels, times: &[i64], values: &[f64], span: &Span| {
        let mut windows = |per_step: &mut dyn FnMut(usize, Window<'_>) -> Result<(), EvalError>| {
            let (mut from, mut to) = (0, 0);
            for step in 0..eval.steps {
                let end = span.end(eval, step);
                let start = end - span.range;
                while to < times.len() && times[to] <= end {
                    to += 1;
                }
                while from < to && times[from] <= start {
                    from += 1;
                }
                per_step(
                    step,
                    Window { times: &times[from..to], values: &values[from..to], start, end },
                )?;
            }
            Ok(())
        };
        visit(labels, &mut windows)
    };
    match expr.bare() {
        Expr::Matrix(selector, range) => matrix(eval, selector, *range, &mut each),
        Expr::Subquery(subquery) => nested(eval, subquery, &mut each),
        _ => Err(EvalError::execution("expected a range vector")),
    }
}

type Each<'e> = dyn FnMut(&Labels, &[i64], &[f64], &Span) -> Result<(), EvalError> + 'e;

fn matrix(
    eval: &Eval<'_>,
    selector: &Selector,
    range: i64,
    each: &mut Each<'_>,
) -> Result<(), EvalError> {
    let span = Span { range, offset: selector.offset, fixed: eval.fixed(selector.at) };
    let min = span.end(eval, 0) - range + 1;
    let max = span.end(eval, eval.steps.saturating_sub(1));
    let found = eval.storage.select(min, max, &selector.matchers).map_err(EvalError::Storage)?;
    let (mut times, mut values) = (Vec::new(), Vec::new());
    for stored in found {
        times.clear();
        values.clear();
        stored.samples(min, max, &mut times, &mut values).map_err(EvalError::Storage)?;
        drop_stale(&mut times, &mut values);
        eval.budget.take(times.len())?;
        if !times.is_empty() {
            each(stored.labels(), &times, &values, &span)?;
        }
        eval.budget.release(times.len());
    }
    Ok(())
}

fn drop_stale(times: &mut Vec<i64>, values: &mut Vec<f64>) {
    if !values.iter().any(|v| is_stale(*v)) {
        return;
    }
    let mut kept = 0;
    for at in 0..times.len() {
        if !is_stale(values[at]) {
            times[kept] = times[at];
            values[kept] = values[at];
            kept += 1;
        }
    }
    times.truncate(kept);
    values.truncate(kept);
}

fn nested(eval: &Eval<'_>, subquery: &Subquery, each: &mut Each<'_>) -> Result<(), EvalError> {
    let span =
        Span { range: subquery.range, offset: subquery.offset, fixed: eval.fixed(subquery.at) };
    let step = subquery.step.unwrap_or(eval.limits.default_step);
    // Steps of a subquery lie on multiples of its step, wherever the query starts.
    let first = span.end(eval, 0) - subquery.range;
    let mut start = first.div_euclid(step) * step;
    if start <= first {
        start += step;
    }
    let end = span.end(eval, eval.steps.saturating_sub(1));
    if start > end {
        return Ok(());
    }
    let inner = eval.inner(start, end, step);
    let series = inner.eval(&subquery.expr)?.into_vector();
    for one in series {
        let (mut times, mut values) =
            (Vec::with_capacity(inner.steps), Vec::with_capacity(inner.steps));
        for (at, value) in one.values.iter().enumerate() {
            if !is_none(*value) {
                times.push(inner.time(at));
                values.push(*value);
            }
        }
        eval.budget.take(0)?;
        each(&one.labels, &times, &values, &span)?;
    }
    Ok(())
}

/// The samples of a range vector at the evaluation's only step.
pub(crate) fn raw_matrix(eval: &Eval<'_>, expr: &Expr) -> Result<Vec<RangeSeries>, EvalError> {
    let mut out = Vec::new();
    each_series(eval, expr, |labels, windows| {
        let mut samples = Vec::new();
        windows(&mut |_, window| {
            samples = window
                .times
                .iter()
                .zip(window.values)
                .map(|(time, value)| Sample { time: *time, value: *value })
                .collect();
            Ok(())
        })?;
        eval.budget.take(samples.len())?;
        if !samples.is_empty() {
            out.push(RangeSeries { labels: labels.clone(), samples });
        }
        Ok(())
    })?;
    out.sort_by(|a, b| a.labels.cmp(&b.labels));
    Ok(out)
}

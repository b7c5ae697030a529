//! Instant vector selectors: the newest sample within the look-back, per step.

use metrics_model::is_stale;

use crate::ast::Selector;
use crate::error::EvalError;
use crate::eval::Eval;
use crate::value::Series;

/// Values of a selector; with `times` the samples' times in seconds instead.
pub(crate) fn instant(
    eval: &Eval<'_>,
    selector: &Selector,
    times_wanted: bool,
) -> Result<Vec<Series>, EvalError> {
    let fixed = eval.fixed(selector.at);
    let lookback = eval.limits.lookback;
    let at = |step: usize| fixed.unwrap_or_else(|| eval.time(step)) - selector.offset;
    let (min, max) = (at(0) - lookback + 1, at(eval.steps.saturating_sub(1)));
    let found = eval.storage.select(min, max, &selector.matchers).map_err(EvalError::Storage)?;
    let mut out = Vec::with_capacity(found.len());
    let (mut times, mut values) = (Vec::new(), Vec::new());
    for stored in found {
        times.clear();
        values.clear();
        stored.samples(min, max, &mut times, &mut values).map_err(EvalError::Storage)?;
        eval.budget.take(times.len())?;
        eval.budget.release(times.len());
        let mut series = Series::empty(stored.labels().clone(), eval.steps);
        let (mut next, mut any) = (0, false);
        for (step, slot) in series.values.iter_mut().enumerate() {
            let now = at(step);
            while next < times.len() && times[next] <= now {
                next += 1;
            }
            let Some(newest) = next.checked_sub(1) else { continue };
            if times[newest] <= now - lookback || is_stale(values[newest]) {
                continue;
            }
            *slot = if times_wanted { times[newest] as f64 / 1000.0 } else { values[newest] };
            any = true;
        }
        if any {
            eval.budget.take(eval.steps)?;
            out.push(series);
        }
    }
    Ok(out)
}

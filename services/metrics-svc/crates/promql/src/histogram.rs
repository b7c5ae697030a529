//! `histogram_quantile` over classic buckets.

use std::collections::HashMap;

use metrics_model::{Labels, METRIC_NAME, parse_go_float};

use crate::ast::Expr;
use crate::error::EvalError;
use crate::eval::Eval;
use crate::value::{Series, is_none, unite};

const BUCKET: &str = "le";

pub(crate) fn quantile(
    eval: &Eval<'_>,
    q: &Expr,
    buckets: &Expr,
) -> Result<Vec<Series>, EvalError> {
    let q = eval.scalar(q)?;
    let series = eval.vector(buckets)?;
    let mut order: Vec<Labels> = Vec::new();
    let mut groups: HashMap<Labels, Vec<(f64, &Series)>> = HashMap::new();
    for one in &series {
        let Some(bound) = parse_go_float(one.labels.get(BUCKET)) else { continue };
        let labels = one.labels.retain(|name| name != BUCKET && name != METRIC_NAME);
        if !groups.contains_key(&labels) {
            order.push(labels.clone());
        }
        groups.entry(labels).or_default().push((bound, one));
    }
    let mut out = Vec::with_capacity(order.len());
    for labels in order {
        let Some(mut members) = groups.remove(&labels) else { continue };
        members.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut result = Series::empty(labels, eval.steps);
        let mut present: Vec<(f64, f64)> = Vec::with_capacity(members.len());
        for (step, q) in q.iter().copied().enumerate().take(eval.steps) {
            present.clear();
            present.extend(
                members
                    .iter()
                    .map(|(bound, s)| (*bound, s.values[step]))
                    .filter(|(_, v)| !is_none(*v)),
            );
            if !present.is_empty() {
                result.values[step] = bucket_quantile(q, &mut present);
            }
        }
        eval.budget.take(eval.steps)?;
        out.push(result);
    }
    unite(out)
}

/// Buckets are (upper bound, cumulative count), sorted by bound.
fn bucket_quantile(q: f64, buckets: &mut Vec<(f64, f64)>) -> f64 {
    if q.is_nan() {
        return f64::NAN;
    }
    if !(0.0..=1.0).contains(&q) {
        return if q < 0.0 { f64::NEG_INFINITY } else { f64::INFINITY };
    }
    if buckets.last().is_none_or(|(bound, _)| *bound != f64::INFINITY) {
        return f64::NAN;
    }
    // Several spellings of one bound count together.
    buckets.dedup_by(|next, kept| {
        let same = next.0 == kept.0;
        if same {
            kept.1 += next.1;
        }
        same
    });
    make_monotonic(buckets);
    if buckets.len() < 2 {
        return f64::NAN;
    }
    let last = buckets.len() - 1;
    let observations = buckets[last].1;
    if observations == 0.0 {
        return f64::NAN;
    }
    let mut rank = q * observations;
    let at = buckets[..last].iter().position(|(_, count)| *count >= rank).unwrap_or(last);
    if at == last {
        return buckets[last - 1].0;
    }
    if at == 0 && buckets[0].0 <= 0.0 {
        return buckets[0].0;
    }
    let (end, mut count) = buckets[at];
    let mut start = 0.0;
    if at > 0 {
        start = buckets[at - 1].0;
        count -= buckets[at - 1].1;
        rank -= buckets[at - 1].1;
    }
    start + (end - start) * (rank / count)
}

/// Cumulative counts never fall; tiny differences are rounding.
fn make_monotonic(buckets: &mut [(f64, f64)]) {
    const TOLERANCE: f64 = 1e-12;
    let mut before = f64::NEG_INFINITY;
    for (at, (_, count)) in buckets.iter_mut().enumerate() {
        if at > 0 {
            let close = (*count - before).abs() <= TOLERANCE * count.abs().max(before.abs());
            if close || *count < before {
                *count = before;
            }
        }
        before = *count;
    }
}

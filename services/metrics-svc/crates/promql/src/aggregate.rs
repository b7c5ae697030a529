//! Aggregations.

use std::cmp::Ordering;
use std::collections::HashMap;

use metrics_model::{Labels, METRIC_NAME, format_float, is_label_name};

use crate::ast::{Aggregate, AggregateOp as Op};
use crate::error::EvalError;
use crate::eval::Eval;
use crate::range_functions;
use crate::value::{Series, is_none, none, unite};

/// A group's labels and the indices of its series.
type Groups = Vec<(Labels, Vec<usize>)>;

fn groups(a: &Aggregate, series: &[Series]) -> Groups {
    let mut seen: HashMap<Labels, usize> = HashMap::new();
    let mut out: Groups = Vec::new();
    for (index, one) in series.iter().enumerate() {
        let listed = |name: &str| a.labels.iter().any(|l| l == name);
        let labels = if a.without {
            one.labels.retain(|name| !listed(name) && name != METRIC_NAME)
        } else if a.labels.is_empty() {
            Labels::default()
        } else {
            one.labels.retain(listed)
        };
        match seen.get(&labels) {
            Some(at) => out[*at].1.push(index),
            None => {
                seen.insert(labels.clone(), out.len());
                out.push((labels, vec![index]));
            }
        }
    }
    out
}

pub(crate) fn aggregate(eval: &Eval<'_>, a: &Aggregate) -> Result<Vec<Series>, EvalError> {
    let param = match (&a.param, a.op) {
        (Some(expr), Op::Topk | Op::Bottomk | Op::Quantile) => eval.scalar(expr)?,
        _ => Vec::new(),
    };
    let series = eval.vector(&a.expr)?;
    let groups = groups(a, &series);
    match a.op {
        Op::Topk | Op::Bottomk => choose(eval, a.op, &param, &series, &groups),
        Op::CountValues => {
            let label = match &a.param {
                Some(expr) => eval.text(expr)?,
                None => String::new(),
            };
            count_values(eval, a, &label, &series, &groups)
        }
        _ => reduce(eval, a.op, &param, &series, groups),
    }
}

fn reduce(
    eval: &Eval<'_>,
    op: Op,
    param: &[f64],
    series: &[Series],
    groups: Groups,
) -> Result<Vec<Series>, EvalError> {
    let mut out = Vec::with_capacity(groups.len());
    let mut present: Vec<f64> = Vec::new();
    for (labels, members) in groups {
        let mut result = Series::empty(labels, eval.steps);
        for step in 0..eval.steps {
            present.clear();
            present
                .extend(members.iter().map(|m| series[*m].values[step]).filter(|v| !is_none(*v)));
            if !present.is_empty() {
                result.values[step] =
                    fold(op, &mut present, param.get(step).copied().unwrap_or(f64::NAN));
            }
        }
        eval.budget.take(eval.steps)?;
        if result.has_any() {
            out.push(result);
        }
    }
    Ok(out)
}

fn fold(op: Op, values: &mut [f64], param: f64) -> f64 {
    let extreme = |better: fn(f64, f64) -> bool| {
        let mut best = values[0];
        for value in values.iter() {
            if better(*value, best) || best.is_nan() {
                best = *value;
            }
        }
        best
    };
    match op {
        Op::Sum => {
            let mut sum = range_functions::Kahan::default();
            values.iter().for_each(|v| sum.add(*v));
            sum.total()
        }
        Op::Avg => range_functions::mean(values),
        Op::Min => extreme(|new, old| new < old),
        Op::Max => extreme(|new, old| new > old),
        Op::Count => values.len() as f64,
        Op::Group => 1.0,
        Op::Stddev => spread(values).sqrt(),
        Op::Stdvar => spread(values),
        Op::Quantile => range_functions::quantile(param, values),
        Op::Topk | Op::Bottomk | Op::CountValues => none(),
    }
}

fn spread(values: &[f64]) -> f64 {
    let (mut mean, mut squares) = (0.0, 0.0);
    for (at, value) in values.iter().enumerate() {
        let delta = value - mean;
        mean += delta / (at + 1) as f64;
        squares += delta * (value - mean);
    }
    squares / values.len() as f64
}

/// topk and bottomk: the series keep their labels. In an instant query the best come first.
fn choose(
    eval: &Eval<'_>,
    op: Op,
    param: &[f64],
    series: &[Series],
    groups: &Groups,
) -> Result<Vec<Series>, EvalError> {
    let mut out: Vec<Series> =
        series.iter().map(|s| Series::empty(s.labels.clone(), eval.steps)).collect();
    let mut order: Vec<usize> = Vec::new();
    for (_, members) in groups {
        for (step, wanted) in param.iter().copied().enumerate().take(eval.steps) {
            if wanted.is_nan() || wanted >= 9.3e18 || wanted <= -9.3e18 {
                return Err(EvalError::execution(format!(
                    "Scalar value {} overflows int64",
                    format_float(wanted)
                )));
            }
            if wanted < 1.0 {
                continue;
            }
            let mut present: Vec<usize> =
                members.iter().copied().filter(|m| !is_none(series[*m].values[step])).collect();
            present.sort_by(|a, b| rank(op, series[*a].values[step], series[*b].values[step]));
            present.truncate(wanted as usize);
            for member in &present {
                out[*member].values[step] = series[*member].values[step];
            }
            if eval.steps == 1 {
                order.extend(present);
            }
        }
    }
    eval.budget.take(out.len())?;
    if eval.steps == 1 {
        return Ok(order.into_iter().map(|at| out[at].clone()).collect());
    }
    out.retain(Series::has_any);
    Ok(out)
}

/// Best first; NaN is worst.
fn rank(op: Op, a: f64, b: f64) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        _ if op == Op::Topk => b.partial_cmp(&a).unwrap_or(Ordering::Equal),
        _ => a.partial_cmp(&b).unwrap_or(Ordering::Equal),
    }
}

fn count_values(
    eval: &Eval<'_>,
    a: &Aggregate,
    label: &str,
    series: &[Series],
    groups: &Groups,
) -> Result<Vec<Series>, EvalError> {
    if !is_label_name(label) {
        return Err(EvalError::execution(format!("invalid label name {label:?}")));
    }
    let mut out: Vec<Series> = Vec::new();
    let mut seen: HashMap<Labels, usize> = HashMap::new();
    for (labels, members) in groups {
        for step in 0..eval.steps {
            for member in members {
                let value = series[*member].values[step];
                if is_none(value) {
                    continue;
                }
                let mut builder = labels.to_builder();
                builder.set(label, &format_float(value));
                let key = builder.build();
                let at = match seen.get(&key) {
                    Some(at) => *at,
                    None => {
                        eval.budget.take(eval.steps)?;
                        seen.insert(key.clone(), out.len());
                        out.push(Series::empty(key, eval.steps));
                        out.len() - 1
                    }
                };
                let slot = &mut out[at].values[step];
                *slot = if is_none(*slot) { 1.0 } else { *slot + 1.0 };
            }
        }
    }
    debug_assert!(a.op == Op::CountValues);
    unite(out)
}

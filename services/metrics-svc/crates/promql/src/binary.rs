//! Binary operators: scalars, vectors with scalars, and matched vectors.

use std::collections::HashMap;

use metrics_model::{Labels, METRIC_NAME};

use crate::ast::{Binary, BinaryOp as Op, Cardinality, Matching};
use crate::error::EvalError;
use crate::eval::Eval;
use crate::value::{Series, Value, is_none, none, unite};

pub(crate) fn binary(eval: &Eval<'_>, b: &Binary) -> Result<Value, EvalError> {
    let (lhs, rhs) = (eval.eval(&b.lhs)?, eval.eval(&b.rhs)?);
    match (lhs, rhs) {
        (Value::Scalar(l), Value::Scalar(r)) => {
            Ok(Value::Scalar(l.iter().zip(&r).map(|(l, r)| scalar_op(b.op, *l, *r)).collect()))
        }
        (Value::Vector(series), Value::Scalar(scalar)) => {
            with_scalar(b, series, &scalar, false).map(Value::Vector)
        }
        (Value::Scalar(scalar), Value::Vector(series)) => {
            with_scalar(b, series, &scalar, true).map(Value::Vector)
        }
        (Value::Vector(l), Value::Vector(r)) if b.op.is_set() => {
            Ok(Value::Vector(sets(eval, b, l, &r)))
        }
        (Value::Vector(l), Value::Vector(r)) => matched(eval, b, l, r).map(Value::Vector),
        _ => Err(EvalError::execution(
            "binary expression must contain only scalar and instant vector types",
        )),
    }
}

fn compare(op: Op, l: f64, r: f64) -> bool {
    match op {
        Op::Eq => l == r,
        Op::Ne => l != r,
        Op::Lt => l < r,
        Op::Gt => l > r,
        Op::Le => l <= r,
        Op::Ge => l >= r,
        _ => false,
    }
}

fn scalar_op(op: Op, l: f64, r: f64) -> f64 {
    match op {
        Op::Add => l + r,
        Op::Sub => l - r,
        Op::Mul => l * r,
        Op::Div => l / r,
        Op::Mod => l % r,
        Op::Pow => l.powf(r),
        Op::Atan2 => l.atan2(r),
        _ => f64::from(u8::from(compare(op, l, r))),
    }
}

/// The sample of a pair; `None` when a comparison filters it out. `kept` is the value a filter lets through.
fn pair_op(b: &Binary, l: f64, r: f64, kept: f64) -> Option<f64> {
    if b.op.is_comparison() && !b.return_bool {
        return compare(b.op, l, r).then_some(kept);
    }
    Some(scalar_op(b.op, l, r))
}

fn drops_name(b: &Binary) -> bool {
    b.return_bool || !b.op.is_comparison()
}

fn with_scalar(
    b: &Binary,
    mut series: Vec<Series>,
    scalar: &[f64],
    swapped: bool,
) -> Result<Vec<Series>, EvalError> {
    for one in &mut series {
        if drops_name(b) {
            one.labels = one.labels.without_name();
        }
        for (value, scalar) in one.values.iter_mut().zip(scalar) {
            if !is_none(*value) {
                let (l, r) = if swapped { (*scalar, *value) } else { (*value, *scalar) };
                *value = pair_op(b, l, r, *value).unwrap_or_else(none);
            }
        }
    }
    unite(series)
}

fn signature(matching: &Matching, labels: &Labels) -> Labels {
    let listed = |name: &str| matching.labels.iter().any(|l| l == name);
    if matching.on {
        labels.retain(listed)
    } else {
        labels.retain(|name| name != METRIC_NAME && !listed(name))
    }
}

fn sets(eval: &Eval<'_>, b: &Binary, mut lhs: Vec<Series>, rhs: &[Series]) -> Vec<Series> {
    let mut groups: HashMap<Labels, Vec<bool>> = HashMap::new();
    let mark = |groups: &mut HashMap<Labels, Vec<bool>>, series: &[Series]| {
        for one in series {
            let present = groups
                .entry(signature(&b.matching, &one.labels))
                .or_insert_with(|| vec![false; eval.steps]);
            for (slot, value) in present.iter_mut().zip(&one.values) {
                *slot |= !is_none(*value);
            }
        }
    };
    let filter =
        |groups: &HashMap<Labels, Vec<bool>>, series: &mut [Series], keep_present: bool| {
            for one in series {
                let present = groups.get(&signature(&b.matching, &one.labels));
                for (step, value) in one.values.iter_mut().enumerate() {
                    if present.is_some_and(|p| p[step]) != keep_present {
                        *value = none();
                    }
                }
            }
        };
    match b.op {
        Op::And | Op::Unless => {
            mark(&mut groups, rhs);
            filter(&groups, &mut lhs, b.op == Op::And);
        }
        _ => {
            mark(&mut groups, &lhs);
            let mut rest = rhs.to_vec();
            filter(&groups, &mut rest, false);
            lhs.extend(rest);
        }
    }
    merge_same(lhs)
}

/// `or` may bring one series from both sides, at different steps.
fn merge_same(series: Vec<Series>) -> Vec<Series> {
    let mut seen: HashMap<Labels, usize> = HashMap::new();
    let mut out: Vec<Series> = Vec::with_capacity(series.len());
    for one in series.into_iter().filter(Series::has_any) {
        match seen.get(&one.labels) {
            Some(at) => {
                for (mine, theirs) in out[*at].values.iter_mut().zip(&one.values) {
                    if is_none(*mine) {
                        *mine = *theirs;
                    }
                }
            }
            None => {
                seen.insert(one.labels.clone(), out.len());
                out.push(one);
            }
        }
    }
    out
}

fn result_labels(b: &Binary, many: &Labels, one: &Labels) -> Labels {
    let m = &b.matching;
    let mut labels = many.to_builder();
    if drops_name(b) {
        labels.remove(METRIC_NAME);
    }
    if m.card == Cardinality::OneToOne {
        if m.on {
            labels.retain(|name| m.labels.iter().any(|l| l == name));
        } else {
            m.labels.iter().for_each(|name| labels.remove(name));
        }
    }
    for name in &m.include {
        labels.set(name, one.get(name));
    }
    labels.build()
}

fn matched(
    eval: &Eval<'_>,
    b: &Binary,
    lhs: Vec<Series>,
    rhs: Vec<Series>,
) -> Result<Vec<Series>, EvalError> {
    // From here on "many" stands left, "one" right; values are swapped back for the operator.
    let swapped = b.matching.card == Cardinality::OneToMany;
    let (many, one) = if swapped { (rhs, lhs) } else { (lhs, rhs) };
    let mut ones: HashMap<Labels, Vec<usize>> = HashMap::new();
    for (at, series) in one.iter().enumerate() {
        ones.entry(signature(&b.matching, &series.labels)).or_default().push(at);
    }
    let mut out: Vec<Series> = Vec::new();
    let mut index: HashMap<Labels, usize> = HashMap::new();
    // Which signature filled a step of a result in one-to-one matching.
    let mut taken: HashMap<Labels, Vec<bool>> = HashMap::new();
    for series in &many {
        let key = signature(&b.matching, &series.labels);
        let Some(partners) = ones.get(&key) else { continue };
        let mut labels_of: HashMap<usize, usize> = HashMap::new();
        for step in 0..eval.steps {
            let value = series.values[step];
            let mut present = partners.iter().copied().filter(|p| !is_none(one[*p].values[step]));
            let Some(partner) = present.next() else { continue };
            if let Some(other) = present.next() {
                return Err(duplicate(b, swapped, &key, &one[partner].labels, &one[other].labels));
            }
            if is_none(value) {
                continue;
            }
            if b.matching.card == Cardinality::OneToOne {
                let used = taken.entry(key.clone()).or_insert_with(|| vec![false; eval.steps]);
                if std::mem::replace(&mut used[step], true) {
                    return Err(EvalError::execution(
                        "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)",
                    ));
                }
            }
            let theirs = one[partner].values[step];
            let (l, r) = if swapped { (theirs, value) } else { (value, theirs) };
            // A filter lets the left operand's value through.
            let Some(result) = pair_op(b, l, r, l) else { continue };
            let at = *labels_of.entry(partner).or_insert_with(|| {
                let labels = result_labels(b, &series.labels, &one[partner].labels);
                *index.entry(labels.clone()).or_insert_with(|| {
                    out.push(Series::empty(labels, eval.steps));
                    out.len() - 1
                })
            });
            let slot = &mut out[at].values[step];
            if !is_none(*slot) {
                return Err(EvalError::execution(
                    "multiple matches for labels: grouping labels must ensure unique matches",
                ));
            }
            *slot = result;
        }
        eval.budget.take(eval.steps)?;
    }
    out.retain(Series::has_any);
    Ok(out)
}

fn duplicate(
    b: &Binary,
    swapped: bool,
    key: &Labels,
    first: &Labels,
    second: &Labels,
) -> EvalError {
    let side = if swapped { "left" } else { "right" };
    let key = if b.matching.on { key.clone() } else { key.without_name() };
    EvalError::execution(format!(
        "found duplicate series for the match group {key} on the {side} hand-side of the operation: [{second}, {first}];many-to-many matching not allowed: matching labels must be unique on one side"
    ))
}

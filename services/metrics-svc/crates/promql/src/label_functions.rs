//! `label_replace` and `label_join`.

use metrics_model::{anchored, is_label_name};

use crate::ast::Expr;
use crate::error::EvalError;
use crate::eval::Eval;
use crate::value::{Series, unite};

pub(crate) fn replace(eval: &Eval<'_>, args: &[Expr]) -> Result<Vec<Series>, EvalError> {
    let mut texts = Vec::new();
    for arg in &args[1..] {
        texts.push(eval.text(arg)?);
    }
    let [target, replacement, source, pattern] = texts.as_slice() else {
        return Err(EvalError::execution("label_replace takes five arguments"));
    };
    let regex = anchored(pattern).map_err(|_| {
        EvalError::execution(format!("invalid regular expression in label_replace(): {pattern}"))
    })?;
    if !is_label_name(target) {
        return Err(EvalError::execution(format!(
            "invalid destination label name in label_replace(): {target}"
        )));
    }
    let mut series = eval.vector(&args[0])?;
    for one in &mut series {
        let source = one.labels.get(source).to_owned();
        if let Some(captures) = regex.captures(&source) {
            let mut value = String::new();
            captures.expand(replacement, &mut value);
            let mut labels = one.labels.to_builder();
            labels.set(target, &value);
            one.labels = labels.build();
        }
    }
    unite(series)
}

pub(crate) fn join(eval: &Eval<'_>, args: &[Expr]) -> Result<Vec<Series>, EvalError> {
    let target = eval.text(&args[1])?;
    let separator = eval.text(&args[2])?;
    let mut sources = Vec::new();
    for arg in &args[3..] {
        let name = eval.text(arg)?;
        if !is_label_name(&name) {
            return Err(EvalError::execution(format!(
                "invalid source label name in label_join(): {name}"
            )));
        }
        sources.push(name);
    }
    if !is_label_name(&target) {
        return Err(EvalError::execution(format!(
            "invalid destination label name in label_join(): {target}"
        )));
    }
    let mut series = eval.vector(&args[0])?;
    for one in &mut series {
        let values: Vec<&str> = sources.iter().map(|name| one.labels.get(name)).collect();
        let joined = values.join(&separator);
        let mut labels = one.labels.to_builder();
        labels.set(&target, &joined);
        one.labels = labels.build();
    }
    unite(series)
}

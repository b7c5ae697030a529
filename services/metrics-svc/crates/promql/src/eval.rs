//! Walks the tree.

use metrics_model::Labels;

use crate::ast::{At, Expr};
use crate::engine::{Budget, Limits, Storage};
use crate::error::EvalError;
use crate::value::{Series, Value, is_none, unite};
use crate::{aggregate, binary, functions, selector};

/// An evaluation over steps `start`, `start + step`, ... up to `end`.
pub(crate) struct Eval<'a> {
    pub(crate) storage: &'a dyn Storage,
    pub(crate) budget: &'a Budget<'a>,
    pub(crate) limits: &'a Limits,
    pub(crate) start: i64,
    pub(crate) step: i64,
    pub(crate) steps: usize,
    /// What `@ start()` and `@ end()` mean: the whole query's bounds, in subqueries too.
    bounds: (i64, i64),
}

impl<'a> Eval<'a> {
    pub(crate) fn new(
        storage: &'a dyn Storage,
        budget: &'a Budget<'a>,
        limits: &'a Limits,
        start: i64,
        end: i64,
        step: i64,
    ) -> Self {
        let steps = usize::try_from((end - start) / step.max(1) + 1).unwrap_or_default();
        Self { storage, budget, limits, start, step, steps, bounds: (start, end) }
    }

    /// The evaluation of a subquery's expression.
    pub(crate) fn inner(&self, start: i64, end: i64, step: i64) -> Eval<'a> {
        Eval {
            bounds: self.bounds,
            ..Self::new(self.storage, self.budget, self.limits, start, end, step)
        }
    }

    pub(crate) fn time(&self, step: usize) -> i64 {
        self.start + step as i64 * self.step
    }

    pub(crate) fn fixed(&self, at: Option<At>) -> Option<i64> {
        at.map(|at| match at {
            At::Time(time) => time,
            At::Start => self.bounds.0,
            At::End => self.bounds.1,
        })
    }

    pub(crate) fn eval(&self, expr: &Expr) -> Result<Value, EvalError> {
        match expr {
            Expr::Number(number) => Ok(Value::Scalar(vec![*number; self.steps])),
            Expr::Text(text) => Ok(Value::Text(text.clone())),
            Expr::Paren(inner) => self.eval(inner),
            Expr::Vector(s) => selector::instant(self, s, false).map(Value::Vector),
            Expr::Matrix(..) | Expr::Subquery(_) => Err(EvalError::execution(
                "range vectors are only allowed as arguments of functions",
            )),
            Expr::Negate(inner) => self.negate(inner),
            Expr::Call(function, args) => functions::call(self, function, args),
            Expr::Aggregate(a) => aggregate::aggregate(self, a).map(Value::Vector),
            Expr::Binary(b) => binary::binary(self, b),
        }
    }

    fn negate(&self, inner: &Expr) -> Result<Value, EvalError> {
        match self.eval(inner)? {
            Value::Scalar(values) => Ok(Value::Scalar(values.into_iter().map(|v| -v).collect())),
            Value::Vector(series) => self.map(series, |v| -v).map(Value::Vector),
            text @ Value::Text(_) => Ok(text),
        }
    }

    /// Applies a function to every sample and drops the metric name.
    pub(crate) fn map(
        &self,
        mut series: Vec<Series>,
        f: impl Fn(f64) -> f64,
    ) -> Result<Vec<Series>, EvalError> {
        for one in &mut series {
            one.labels = one.labels.without_name();
            for value in &mut one.values {
                if !is_none(*value) {
                    *value = f(*value);
                }
            }
        }
        unite(series)
    }

    pub(crate) fn vector(&self, expr: &Expr) -> Result<Vec<Series>, EvalError> {
        self.eval(expr).map(Value::into_vector)
    }

    pub(crate) fn scalar(&self, expr: &Expr) -> Result<Vec<f64>, EvalError> {
        self.eval(expr).map(Value::into_scalar)
    }

    pub(crate) fn text(&self, expr: &Expr) -> Result<String, EvalError> {
        match self.eval(expr)? {
            Value::Text(text) => Ok(text),
            _ => Err(EvalError::execution("expected a string")),
        }
    }

    /// One series without labels.
    pub(crate) fn unlabelled(&self, values: Vec<f64>) -> Value {
        Value::Vector(vec![Series { labels: Labels::default(), values }])
    }
}

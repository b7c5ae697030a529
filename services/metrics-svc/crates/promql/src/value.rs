//! Values while an expression is evaluated, and what a caller gets.

use metrics_model::{Labels, STALE_NAN_BITS, is_stale, stale_nan};

use crate::error::EvalError;

/// A sample of a result; `time` in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Milliseconds since the epoch.
    pub time: i64,
    /// The value.
    pub value: f64,
}

/// A series of a result.
#[derive(Debug, Clone, PartialEq)]
pub struct RangeSeries {
    /// Its labels.
    pub labels: Labels,
    /// In order of time.
    pub samples: Vec<Sample>,
}

/// Marks a step without a sample. Results never hold the staleness marker, so its bits are free.
pub(crate) fn none() -> f64 {
    stale_nan()
}

pub(crate) fn is_none(value: f64) -> bool {
    is_stale(value)
}

/// One value per step.
#[derive(Debug, Clone)]
pub(crate) struct Series {
    pub(crate) labels: Labels,
    pub(crate) values: Vec<f64>,
}

impl Series {
    pub(crate) fn empty(labels: Labels, steps: usize) -> Self {
        Self { labels, values: vec![none(); steps] }
    }

    pub(crate) fn has_any(&self) -> bool {
        self.values.iter().any(|v| v.to_bits() != STALE_NAN_BITS)
    }
}

/// The value of an expression over all steps.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Vector(Vec<Series>),
    Scalar(Vec<f64>),
    Text(String),
}

impl Value {
    pub(crate) fn into_vector(self) -> Vec<Series> {
        match self {
            Self::Vector(series) => series,
            Self::Scalar(values) => vec![Series { labels: Labels::default(), values }],
            Self::Text(_) => Vec::new(),
        }
    }

    pub(crate) fn into_scalar(self) -> Vec<f64> {
        match self {
            Self::Scalar(values) => values,
            _ => Vec::new(),
        }
    }
}

/// Joins series that came to have the same labels; two samples at one step are an error.
pub(crate) fn unite(mut series: Vec<Series>) -> Result<Vec<Series>, EvalError> {
    series.retain(Series::has_any);
    let mut seen = std::collections::HashMap::with_capacity(series.len());
    let mut out: Vec<Series> = Vec::with_capacity(series.len());
    for one in series {
        match seen.get(&one.labels) {
            None => {
                seen.insert(one.labels.clone(), out.len());
                out.push(one);
            }
            Some(at) => {
                let first: &mut Series = &mut out[*at];
                for (mine, theirs) in first.values.iter_mut().zip(&one.values) {
                    if is_none(*theirs) {
                        continue;
                    }
                    if !is_none(*mine) {
                        return Err(EvalError::execution(
                            "vector cannot contain metrics with the same labelset",
                        ));
                    }
                    *mine = *theirs;
                }
            }
        }
    }
    Ok(out)
}

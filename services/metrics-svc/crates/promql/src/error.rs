//! Failures of parsing and evaluation, with Prometheus' texts.

use thiserror::Error;

/// A text that is no expression.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("{line}:{column}: parse error: {reason}")]
pub struct ParseError {
    /// Counted from 1.
    pub line: usize,
    /// Counted from 1.
    pub column: usize,
    /// What is wrong.
    pub reason: String,
}

impl ParseError {
    pub(crate) fn at(text: &str, offset: usize, reason: impl Into<String>) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Self { line, column, reason: reason.into() }
    }
}

/// Why an expression has no result.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum EvalError {
    /// The expression cannot be evaluated over this data.
    #[error("{0}")]
    Execution(String),
    /// The time limit passed.
    #[error("query timed out in expression evaluation")]
    Timeout,
    /// Nobody waits for the result any more.
    #[error("query was canceled in expression evaluation")]
    Canceled,
    /// The samples limit was reached.
    #[error("query processing would load too many samples into memory in expression evaluation")]
    TooManySamples,
    /// The storage failed.
    #[error("expanding series: {0}")]
    Storage(String),
}

impl EvalError {
    pub(crate) fn execution(text: impl Into<String>) -> Self {
        Self::Execution(text.into())
    }
}

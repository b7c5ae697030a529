//! PromQL: parse an expression, evaluate it over any [`Storage`].
//!
//! Evaluation is series-major: each series of a selector is decoded once and its windows for all steps are
//! computed before the next series is touched, so a query needs memory for its results, not for its samples.
//! Semantics are those of Prometheus 3: range selectors and look-back are open to the left. Native histograms
//! and experimental functions are not there.

mod aggregate;
mod ast;
mod binary;
mod check;
mod engine;
mod error;
mod eval;
mod functions;
mod histogram;
mod label_functions;
mod lexer;
mod parser;
mod parser_matchers;
mod parser_times;
mod points;
mod printer;
mod range_functions;
mod selector;
mod value;

pub use ast::{AggregateOp, At, BinaryOp, Expr, Selector, ValueType};
pub use engine::{Limits, Query, QueryResult, Storage, StoredSeries, instant, range};
pub use error::{EvalError, ParseError};
pub use parser::{parse, parse_selector};
pub use value::{RangeSeries, Sample};

//! Queries and rules.

mod alerts;
mod query;
mod rules;
mod template;

pub use alerts::{AlertState, AlertView};
pub use query::{Asked, QueryEngine};
pub use rules::{RuleView, Rules};
pub use template::Template;

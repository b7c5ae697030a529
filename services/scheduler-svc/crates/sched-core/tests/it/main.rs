//! The engine against a naive oracle and against an engine that is built anew.

mod oracle;
mod random;
mod texts;

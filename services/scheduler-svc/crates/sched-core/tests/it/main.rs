//! The engine against a naive oracle and against an engine that is built anew.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop here")]

mod oracle;
mod random;
mod texts;

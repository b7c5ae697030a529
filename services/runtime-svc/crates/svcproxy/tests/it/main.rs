//! Black-box tests: the proxy inside a network namespace of its own, with a client and servers in others.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics with the error")]

mod api;
mod net;
mod services;

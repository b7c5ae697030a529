//! Black-box tests: the built binary, real sockets, small upstreams inside the test, and Envoy as the oracle.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod admin;
mod ads;
mod client;
mod control;
mod data_path;
mod faults;
mod gateway;
mod health;
mod oracle;
mod registry;
mod start;
mod tcp;
mod tls;
mod upstream;

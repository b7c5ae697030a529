//! Black-box tests: the binary over real sockets, fake targets, and Prometheus itself as the oracle.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking, helper functions too")]

mod api;
mod config;
mod crash;
mod differential;
mod grpc;
mod http;
mod kubernetes;
mod remote_write;
mod rules;
mod scrape;
mod server;
mod target;

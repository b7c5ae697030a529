//! Black-box tests: the binary over real sockets, fake targets, and Prometheus itself as the oracle.

mod api;
mod config;
mod crash;
mod differential;
mod grpc;
mod http;
mod kubernetes;
mod rules;
mod scrape;
mod server;
mod target;

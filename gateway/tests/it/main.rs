//! Black-box tests: the built binary, real sockets, small upstreams inside the test, and Envoy as the oracle.

mod admin;
mod ads;
mod client;
mod control;
mod data_path;
mod faults;
mod gateway;
mod oracle;
mod registry;
mod start;
mod tcp;
mod tls;
mod upstream;

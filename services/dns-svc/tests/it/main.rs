//! Black-box tests over real sockets.

mod cluster;
mod fake_api;
mod server;
mod transport;

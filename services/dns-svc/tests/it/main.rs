//! Black-box tests over real sockets.

mod cluster;
mod fake_api;
mod reload;
mod server;
mod transport;
mod zones;

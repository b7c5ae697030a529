//! Black-box tests: the proxy inside a network namespace of its own, with a client and servers in others.

mod api;
mod net;
mod services;

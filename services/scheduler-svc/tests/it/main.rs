//! Black-box tests: a real etcd below, the real kubectl (and curl) above.

mod cluster;
mod grpc;
mod http;
mod kubectl;
mod recovery;

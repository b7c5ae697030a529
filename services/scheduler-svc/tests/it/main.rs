//! Black-box tests: a real etcd below, the real kubectl (and curl) above.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod cluster;
mod grpc;
mod http;
mod kubectl;
mod kubelet;
mod recovery;

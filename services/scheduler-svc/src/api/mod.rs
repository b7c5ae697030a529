//! The binary's own gRPC.

mod kube;

pub use kube::KubeService;

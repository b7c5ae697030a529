//! From Kubernetes objects to Envoy resources. No I/O, no clock.

mod endpoints;
pub mod ingress;
pub mod kube;
mod listener;
pub mod snapshot;
pub mod world;

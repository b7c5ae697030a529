//! The xDS server beside a small Kubernetes API, with the gateway and with Envoy as its clients.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod kube;
mod proxies;

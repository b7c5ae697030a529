//! The xDS server beside a small Kubernetes API, with the gateway and with Envoy as its clients.

mod kube;
mod proxies;

//! The `kubernetes` plugin: names of Services, endpoints and pods (DNS-Based Service Discovery 1.1.0).
//!
//! The store follows the API server (see `remote::kube_watch`); answering reads it under one lock and never
//! waits. While the API server is away the last state is served.

mod answer;
mod model;
mod store;

pub use answer::{Kubernetes, Options, PodsMode};
pub use store::Store;

//! Whom this server asks: other DNS servers and the Kubernetes API.

mod forward;
mod kube_watch;

pub use forward::{Forward, ForwardOptions, Policy};
pub use kube_watch::{WatchOptions, follow};

//! Whom this server asks: other DNS servers and the Kubernetes API.

mod forward;
mod kube_watch;
mod loop_test;

pub use forward::{Forward, ForwardOptions, Policy};
pub use kube_watch::{Tasks, WatchOptions, follow};
pub use loop_test::test_loop;

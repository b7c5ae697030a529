//! A small client of the Kubernetes API.
//!
//! Any conformant server answers it: ours or kube-apiserver. Objects are whatever `serde` type the caller
//! names, down to `serde_json::Value`; the crate knows no kinds. [`Reflector`] keeps a caller in step with a
//! collection: list, watch, and list anew when the watch is too old.

mod client;
mod config;
mod error;
mod events;
mod leader;
mod object;
mod reflector;
mod watch;

pub use client::{Client, ListParams, Patch};
pub use config::{ConfigError, KubeConfig};
pub use error::{Error, Status};
pub use events::{EventRecorder, Regarding};
pub use leader::{LeaderElection, now_micros, now_rfc3339};
pub use object::{List, ListMeta, ObjectMeta, OwnerReference};
pub use reflector::{Change, Reflector};
pub use watch::{WatchEvent, WatchStream};

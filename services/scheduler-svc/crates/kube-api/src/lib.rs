//! The Kubernetes REST API over an etcd v3 store.
//!
//! Objects lie in the store exactly as kube-apiserver puts them there; one watch of the store feeds a cache that
//! answers lists and watches. Kinds are data ([`kube_spec`]), encodings follow from them ([`kube_codec`]), and
//! only rules of behaviour are code: `policy` (defaults, admission, validation), `rest` (verbs), `subresources`.
//!
//! The crate starts no controllers and schedules nothing.

mod addresses;
mod body;
mod bootstrap;
mod config;
mod error;
mod identity;
mod kubelet_tls;
mod metrics;
mod object;
mod output;
mod pages;
mod policy;
mod request;
mod rest;
mod selector;
mod server;
mod start;
mod store;
mod stored;
mod subresources;
mod views;
mod virtuals;

pub use config::Config;
pub use start::{Running, start};

/// The Kubernetes version whose API is served.
pub const GIT_VERSION: &str = "v1.35.0";

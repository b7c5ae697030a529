//! The node agent: what kubelet and kube-proxy do on a node.
//!
//! It reads the pods bound to its node from the API server (and from manifests), runs them through any CRI
//! socket, reports their status and serves the kubelet API. It knows no runtime but CRI, so containerd can stand
//! where runtime-svc does, and kube-apiserver where scheduler-svc does.
//!
//! - `engine` decides and is pure: plans, configurations, statuses, probe verdicts.
//! - `sync` acts: the dispatcher gives every pod a worker; a worker looks at the runtime, makes one step towards
//!   the pod's spec and reports. All state that matters is the runtime's and the API server's, so an agent that
//!   restarts adopts what runs.
//! - `remote` speaks CRI, the Kubernetes API and probes; `host` touches files, mounts and cgroups.
//! - `api` is the kubelet HTTPS API.
//!
//! An agent that ends leaves the pods running.

pub mod config;
pub mod engine;
pub mod error;
pub mod host;
pub mod metrics;
pub mod remote;
pub mod sync;

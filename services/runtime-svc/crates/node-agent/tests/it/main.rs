//! Black-box tests: the agent against a real containerd and a scripted API server.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics with the error")]

mod adoption;
mod fake_api;
mod image;
mod kubelet_api;
mod lifecycle;
mod probes;
mod real_api;
mod rig;

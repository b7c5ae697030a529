//! Black-box tests: the agent against a real containerd and a scripted API server.

mod adoption;
mod fake_api;
mod image;
mod kubelet_api;
mod lifecycle;
mod probes;
mod rig;

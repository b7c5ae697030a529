//! Wire out: the container runtime, the API server, and what probes ask.

pub mod api_server;
pub mod credentials;
pub mod cri;
pub mod events;
pub mod probe_call;

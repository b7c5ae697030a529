//! What a node agent decides, free of sockets, files and clocks: objects in, configurations, plans and
//! statuses out. Times come in as nanoseconds since the epoch.

pub mod backoff;
pub mod container_config;
pub mod env;
pub mod eviction;
pub mod expand;
pub mod field;
pub mod image;
pub mod kube;
pub mod log_line;
pub mod names;
pub mod observed;
pub mod phase;
pub mod plan;
pub mod probe;
pub mod quantity;
pub mod resources;
pub mod sandbox_config;
pub mod status;
pub mod time;

//! What comes in: DNS over UDP and TCP, the health, readiness and metrics pages, and the own gRPC API.

mod grpc;
mod pages;
mod running;
mod tcp;
mod udp;

pub use grpc::AdminService;
pub use pages::{health, metrics, ready};
pub use running::Running;
pub use tcp::serve_tcp;
pub use udp::{bind_udp, serve_udp};

//! Wire in: CRI, the image proxy, flotilla.engine.v1, and the streams behind exec, attach and port-forward.

mod convert;
mod engine_service;
mod exec_sync;
mod image_proxy;
mod log_lines;
mod runtime_service;
mod stats;
mod status;
mod streamed;
mod streams;

pub use engine_service::EngineService;
pub use image_proxy::ImageProxy;
pub use runtime_service::CriRuntime;
pub use status::About;
pub use streams::StreamServer;

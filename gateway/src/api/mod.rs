//! The admin port: Envoy's pages, and the registry's gRPC API.

pub mod admin;
mod dump;
pub mod registry;

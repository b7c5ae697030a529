//! The wire: gRPC services and HTTP pages over the engine.

pub mod admin;
pub mod auth;
pub mod cluster;
pub mod health;
pub mod kv;
pub mod lease;
pub mod maintenance;
pub mod pages;
pub mod status;
pub mod watch;

//! The wire: gRPC services and HTTP pages over the engine.

pub mod admin;
pub mod auth;
pub mod caller;
pub mod cluster;
pub mod election;
pub mod gateway;
pub mod health;
pub mod kv;
pub mod lease;
pub mod lock;
pub mod maintenance;
pub mod pages;
pub mod status;
pub mod watch;

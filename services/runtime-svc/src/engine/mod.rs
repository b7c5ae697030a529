//! The domain: sandboxes and containers, their life cycles, and what undoes a step that failed.
//!
//! Knows no wire protocol, no disk and no syscall; what it needs of those it asks for through the traits in
//! [`ports`]. Records are saved before the step they announce, so that a crash leaves nothing unknown behind.

pub mod capabilities;
pub mod container;
pub mod error;
pub mod events;
pub mod exec;
pub mod filter;
pub mod hosts_files;
pub mod identity;
pub mod image_config;
pub mod ipam;
pub mod mount_plan;
pub mod node;
pub mod ports;
pub mod records;
pub mod recovery;
pub mod sandbox;
pub mod seccomp;
pub mod spec_build;
pub mod stop;
mod syscalls;

pub use error::Error;
pub use node::{Node, Settings};

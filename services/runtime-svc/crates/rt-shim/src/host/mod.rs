//! Syscalls: forking a container's process and everything it does until `execve`.
//!
//! [`launch`] forks; the child enters or makes namespaces ([`launch`]), builds its root filesystem ([`rootfs`],
//! [`mounts`], [`devices`]), takes on its identity ([`users`], [`privileges`]) and executes the program
//! ([`program`]). The forking process must be single-threaded, because the child allocates.

pub mod device_filter;
pub mod launch;
pub mod sys;

pub mod devices;
pub(crate) mod mounts;
mod privileges;
mod program;
mod rootfs;
mod terminal;
mod tree;
mod users;

use crate::wire::{Failure, FailureKind};

/// Turns an error into a failure that says what was tried.
pub(crate) trait Step<T> {
    /// Names what failed.
    fn step(self, what: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T, E: std::fmt::Display> Step<T> for Result<T, E> {
    fn step(self, what: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| failure(format!("{}: {error}", what())))
    }
}

/// A failure of no special kind.
pub(crate) fn failure(message: impl Into<String>) -> Failure {
    Failure { kind: FailureKind::Other, message: message.into() }
}

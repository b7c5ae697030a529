//! The Dockerfile language: text to instructions with line numbers.
//!
//! Nothing is executed here and no file is read. Reference: docs.docker.com, "Dockerfile reference".

mod expand;
mod instruction;
mod lines;

use thiserror::Error;

pub use expand::Scope;
pub use instruction::{Copy, Form, Healthcheck, Instruction, Op, parse};

/// What is wrong with a Dockerfile, and where.
#[derive(Debug, Error, PartialEq, Eq, Clone)]
#[error("Dockerfile:{line}: {reason}")]
pub struct DockerfileError {
    /// Line of the instruction, from 1.
    pub line: usize,
    /// What is wrong, and what to write instead.
    pub reason: String,
}

impl DockerfileError {
    /// An error at a line.
    pub fn new(line: usize, reason: impl Into<String>) -> Self {
        Self { line, reason: reason.into() }
    }
}

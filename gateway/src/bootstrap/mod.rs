//! Reading configuration: YAML or JSON text, or resources from a control plane, into typed messages.
//!
//! The schema decides what a field is. A field the schema does not have is refused with its path; a field it has
//! but this gateway does not implement is refused with `not supported yet: PATH`. Nothing is silently ignored.
//! This room knows no sockets and gives no meaning to values; that is done where they are used.

mod any;
mod load;
pub mod pb;
mod strict;
mod supported;

pub use any::{type_url, unpack};
pub use load::{data_source, duration, from_bytes, from_text, to_json};

use thiserror::Error;

/// Why a configuration is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// The text is neither YAML nor JSON, or a value has the wrong type.
    #[error("{0}")]
    Syntax(String),
    /// The schema has no such field.
    #[error("unknown field: {path} (message {message})")]
    UnknownField {
        /// Dotted path from the root.
        path: String,
        /// Full name of the message that lacks the field.
        message: String,
    },
    /// A known part of the API that this gateway does not implement.
    #[error("not supported yet: {0}")]
    Unsupported(String),
    /// A value that cannot work.
    #[error("{path}: {reason}")]
    Invalid {
        /// What is wrong, as a dotted path or a resource name.
        path: String,
        /// Why.
        reason: String,
    },
}

impl ConfigError {
    /// A value that cannot work.
    pub fn invalid(path: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid { path: path.into(), reason: reason.into() }
    }

    /// A part of the API this gateway does not implement.
    pub fn unsupported(path: impl Into<String>) -> Self {
        Self::Unsupported(path.into())
    }

    /// The same error below `outer`.
    #[must_use]
    pub fn within(self, outer: &str) -> Self {
        match self {
            Self::Invalid { path, reason } if path.is_empty() => {
                Self::Invalid { path: outer.to_owned(), reason }
            }
            Self::Invalid { path, reason } => {
                Self::Invalid { path: format!("{outer}.{path}"), reason }
            }
            Self::Unsupported(path) => Self::Unsupported(format!("{outer}.{path}")),
            other => other,
        }
    }
}

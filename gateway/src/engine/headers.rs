//! Header changes that routes ask for.

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

/// What to do when the header is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Append {
    /// Add another value.
    Add,
    /// Leave what is there.
    IfAbsent,
    /// Replace what is there, or add.
    Overwrite,
    /// Replace what is there, else do nothing.
    OverwriteIfExists,
}

/// Additions and removals, in the order they are made.
#[derive(Debug, Clone, Default)]
pub struct HeaderEdits {
    /// Removed first.
    pub remove: Vec<HeaderName>,
    /// Added after that.
    pub add: Vec<(HeaderName, HeaderValue, Append)>,
}

impl HeaderEdits {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.add.is_empty()
    }

    /// Applies the edits.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value, append) in &self.add {
            match append {
                Append::Add => {
                    headers.append(name, value.clone());
                }
                Append::IfAbsent if headers.contains_key(name) => {}
                Append::OverwriteIfExists if !headers.contains_key(name) => {}
                Append::IfAbsent | Append::Overwrite | Append::OverwriteIfExists => {
                    headers.insert(name, value.clone());
                }
            }
        }
    }
}

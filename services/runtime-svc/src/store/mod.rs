//! Durable records: one file per sandbox and container, replaced atomically.
//!
//! Nothing is synced to disk: after a crash of the process the files are complete, and after a power cut every pod
//! is gone anyway. A file that does not parse is moved aside and reported, never guessed at.

mod records;

pub use records::FileRecords;

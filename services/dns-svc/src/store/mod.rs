//! What is read from files while serving: zones.

mod watch;
mod zonefile;

pub use watch::{AutoOptions, FileOptions, follow_directory, follow_file};
pub use zonefile::read_zone;

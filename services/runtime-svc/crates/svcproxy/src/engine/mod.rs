//! Objects in, transactions out. No processes, no files.

pub mod objects;
pub mod ports;
mod render;
mod ruleset;

pub use render::removal;
pub use ruleset::{Family, Flow, Ruleset, Settings, rules};

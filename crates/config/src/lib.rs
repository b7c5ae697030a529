//! What every binary does before it binds a port: read flags, refuse what it does not know, name the fix.
//!
//! The originals are Go programs, so flags may carry one dash (`-conf`), durations read `1h30m` and a usage
//! error ends the process before anything is bound.

mod duration;
mod exit;
mod flags;
mod listen;

pub use duration::{ParseDurationError, format_duration, parse_duration};
pub use exit::{ExitError, exit_with};
pub use flags::{go_style_args, parse_args};
pub use listen::{ListenAddr, ParseListenError};

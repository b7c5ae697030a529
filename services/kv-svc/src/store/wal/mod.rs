//! The log on disk: segments of checksummed frames, one frame and one fdatasync per group of appends.
//!
//! A group is one frame, so a crash can damage nothing but the last frame. Damage anywhere else is not a crash's
//! work, and opening refuses it. A frame that was torn before it was acknowledged is cut off.

mod frame;
mod record;
mod recover;
mod segment;
mod writer;

pub use record::{LogEntry, LogPlace, Payload, Record, Vote};
pub use recover::{Recovered, WalError, recover};
pub use writer::{Wal, WalWriter};

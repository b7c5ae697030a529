//! DNS messages as bytes (RFC 1035 section 4).
//!
//! Queries are parsed by hand with every limit checked; answers are built by [`MessageBuilder`]; answers of
//! upstreams are walked by [`scan`] without unpacking their data. Nothing here allocates more than the message
//! is long, and nothing panics on any input.

mod builder;
mod name;
mod query;
mod record;
mod scan;
pub mod types;
mod unpack;

pub use builder::{MessageBuilder, bad_version, finish};
pub use name::Name;
pub use query::{Edns, Query, QueryError};
pub use record::{Rdata, Record};
pub use scan::{Scan, Span, scan};
pub use unpack::{names_in, unpack};

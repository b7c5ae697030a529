//! What the server asks of others: discovery of targets, and their samples.

mod ca_bundle;
mod discovery;
mod fetch;
mod scrape_loop;
mod scrape_pool;
mod target;
mod targets;
mod tls;

pub use target::Metadata;
pub use targets::Targets;

pub(crate) use tls::connector;

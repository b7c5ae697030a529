//! Deciding the answer to a query.
//!
//! A [`Site`] is one server block compiled: its zones, its wrappers (cache, errors, log, metrics) and its
//! [`Backend`]s in the order of CoreDNS's plugin.cfg. Order in the Corefile does not matter. A backend answers,
//! or passes the query on to the next (`fallthrough`); when all passed, the answer is SERVFAIL, as CoreDNS's.

mod cache;
mod hosts;
pub mod kubernetes;
mod site;
mod whoami;

pub use cache::{Cache, CacheConfig};
pub use hosts::{Hosts, reverse_name};
pub use kubernetes::Kubernetes;
pub use site::{Backend, Client, Now, Outcome, Site, Sites};
pub use whoami::whoami;

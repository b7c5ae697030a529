//! Deciding the answer to a query.
//!
//! A [`Site`] is one server block compiled: its zones, its wrappers (cache, errors, log, metrics) and its
//! [`Backend`]s in the order of CoreDNS's plugin.cfg. Order in the Corefile does not matter. A backend answers,
//! or passes the query on to the next (`fallthrough`); when all passed, the answer is SERVFAIL, as CoreDNS's.

mod cache;
mod errors;
mod file;
mod hosts;
pub mod kubernetes;
mod loop_guard;
mod query_log;
mod rewrite;
mod site;
mod whoami;
mod wrappers;
mod zone;

pub use cache::{Cache, CacheConfig};
pub use errors::{Consolidate, Errors};
pub use file::{Said, ZoneFiles, Zones};
pub use hosts::{Hosts, reverse_name};
pub use kubernetes::Kubernetes;
pub use loop_guard::LoopGuard;
pub use query_log::{COMBINED, COMMON, Classes, LogRule};
pub use rewrite::{Back, Change, NameMatch, RewriteRule};
pub use site::{Backend, Client, Now, Outcome, Site, Sites};
pub use whoami::whoami;
pub use wrappers::{AclAction, AclPolicy, Wrappers};
pub use zone::Zone;

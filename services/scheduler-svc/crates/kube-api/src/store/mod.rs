//! The objects in etcd, and the cache that follows them.

mod cache;
mod etcd;
mod feed;

pub use cache::{Cache, CacheEvent, Entry, ResourceCache};
pub use etcd::{Etcd, Kv, Outcome, StoreError};
pub(crate) use feed::prefix_end;
pub use feed::{Feed, follow};

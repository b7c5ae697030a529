//! What the controllers know of the cluster: one store per kind, kept in step by one watch each.

mod informer;
mod kinds;
mod object;
mod store;

pub use informer::{Event, Informers};
pub use kinds::{Kind, KindInfo, known};
pub use object::{Key, Object, parse_time};
pub use store::Store;

/// The kinds that controllers name.
pub mod kind {
    pub use super::kinds::*;
}

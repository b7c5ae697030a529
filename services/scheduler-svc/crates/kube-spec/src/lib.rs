//! What the Kubernetes API is made of, as tables.
//!
//! [`types`] holds the fields of every message (JSON name, protobuf number, type, merge keys, defaults), read
//! from `data/types.txt`, which `gen/` writes from the struct tags of k8s.io/api. [`resources`] holds the
//! resources (group, version, plural, scope, short names, subresources, place in the store).
//!
//! The crate knows no wire format and no rule of behaviour.

mod resource;
mod types;

pub use resource::{ALL_VERBS, Resource, Subresource, by_kind, find, resources};
pub use types::{Field, ListType, PatchStrategy, Struct, StructId, Type, Types, types};

impl StructId {
    /// The fields of the message.
    pub fn get(self) -> &'static Struct {
        types().get(self)
    }
}

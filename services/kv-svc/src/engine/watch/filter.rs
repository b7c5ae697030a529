//! Which changes a watcher wants, and how they are told.

use flotilla_proto::etcd::etcdserverpb::watch_create_request::FilterType;
use flotilla_proto::etcd::mvccpb::Event;
use flotilla_proto::etcd::mvccpb::event::EventType;

use crate::engine::index::KeyRange;
use crate::engine::write::Change;

/// What a watcher asked for.
#[derive(Debug, Clone)]
pub struct Interest {
    /// Keys.
    pub range: KeyRange,
    /// Whether puts are wanted.
    pub puts: bool,
    /// Whether deletions are wanted.
    pub deletions: bool,
    /// Whether the value before is wanted.
    pub previous: bool,
}

impl Interest {
    /// An interest in a range, less what the filters leave out.
    pub fn new(range: KeyRange, filters: &[i32], previous: bool) -> Self {
        let without = |kind: FilterType| filters.contains(&(kind as i32));
        Self {
            range,
            puts: !without(FilterType::Noput),
            deletions: !without(FilterType::Nodelete),
            previous,
        }
    }

    /// Whether a change is wanted.
    pub fn wants(&self, change: &Change) -> bool {
        let kind = if change.deleted { self.deletions } else { self.puts };
        kind && self.range.contains(&change.kv.key)
    }
}

/// The event of a change, without the value before.
pub fn event(change: &Change) -> Event {
    let kind = if change.deleted { EventType::Delete } else { EventType::Put };
    Event { r#type: kind as i32, kv: Some(change.kv.clone()), prev_kv: None }
}

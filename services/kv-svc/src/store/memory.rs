//! A store in memory: for tests and simulations. Nothing survives the process.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;

use crate::engine::store::{Batch, Scan, Space, Store, StoreError, Usage, View, Visit, Write};

type Spaces = [BTreeMap<Bytes, Bytes>; 3];

/// Ordered maps. A view shares them until the next write copies.
#[derive(Debug, Default)]
pub struct MemoryStore {
    spaces: RwLock<Arc<Spaces>>,
}

fn place(space: Space) -> usize {
    match space {
        Space::Revisions => 0,
        Space::Heads => 1,
        Space::System => 2,
    }
}

impl Store for MemoryStore {
    fn view(&self) -> Box<dyn View + '_> {
        Box::new(MemoryView(self.spaces.read().clone()))
    }

    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.spaces.read()[place(space)].get(key).cloned())
    }

    fn write(&self, batch: Batch) -> Result<(), StoreError> {
        let mut guard = self.spaces.write();
        let spaces = Arc::make_mut(&mut guard);
        for change in batch {
            match change {
                Write::Put(space, key, value) => {
                    spaces[place(space)].insert(key, value);
                }
                Write::Delete(space, key) => {
                    spaces[place(space)].remove(&key);
                }
                Write::Clear(space) => spaces[place(space)].clear(),
            }
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn reclaim(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn usage(&self) -> Usage {
        let spaces = self.spaces.read();
        let pairs = spaces.iter().flatten();
        let total = pairs.map(|(key, value)| (key.len() + value.len()) as u64).sum();
        Usage { total, live: total }
    }
}

struct MemoryView(Arc<Spaces>);

impl View for MemoryView {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.0[place(space)].get(key).cloned())
    }

    fn scan(
        &self,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        if to.is_some_and(|to| to <= from) {
            return Ok(());
        }
        let to = to.map_or(Bound::Unbounded, Bound::Excluded);
        for (key, value) in self.0[place(space)].range::<[u8], _>((Bound::Included(from), to)) {
            if visit(key, value) == Scan::Stop {
                break;
            }
        }
        Ok(())
    }
}

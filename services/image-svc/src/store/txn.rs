//! A transaction: reads see every change before it, writes are kept until it ends well.

use std::collections::BTreeMap;

use rocksdb::{DB, Direction, IteratorMode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::db::family;
use super::{Cf, StoreError, rows};

/// Changed keys; `None` deletes.
pub(super) type Changes = BTreeMap<(Cf, Vec<u8>), Option<Vec<u8>>>;

/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// Handed to the closure of [`super::Db::write`].
pub struct Txn<'a> {
    db: &'a DB,
    before: &'a Changes,
    own: Changes,
}

impl<'a> Txn<'a> {
    pub(super) fn new(db: &'a DB, before: &'a Changes) -> Self {
        Self { db, before, own: Changes::new() }
    }

    pub(super) fn into_changes(self) -> Changes {
        self.own
    }

    /// The value of a key.
    ///
    /// # Errors
    /// When RocksDB fails.
    pub fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let changed = (cf, key.to_vec());
        match self.own.get(&changed).or_else(|| self.before.get(&changed)) {
            Some(value) => Ok(value.clone()),
            None => Ok(self.db.get_cf(family(self.db, cf), key)?),
        }
    }

    /// Whether a key exists.
    ///
    /// # Errors
    /// When RocksDB fails.
    pub fn has(&self, cf: Cf, key: &[u8]) -> Result<bool, StoreError> {
        Ok(self.get(cf, key)?.is_some())
    }

    /// The value of a key, read as JSON.
    ///
    /// # Errors
    /// When RocksDB fails or the row is damaged.
    pub fn row<T: DeserializeOwned>(&self, cf: Cf, key: &[u8]) -> Result<Option<T>, StoreError> {
        self.get(cf, key)?.map(|bytes| rows::decode(key, &bytes)).transpose()
    }

    /// Sets a key.
    pub fn put(&mut self, cf: Cf, key: Vec<u8>, value: impl Into<Vec<u8>>) {
        self.own.insert((cf, key), Some(value.into()));
    }

    /// Sets a key to a row as JSON.
    pub fn put_row(&mut self, cf: Cf, key: Vec<u8>, row: &impl Serialize) {
        self.put(cf, key, rows::encode(row));
    }

    /// Deletes a key.
    pub fn delete(&mut self, cf: Cf, key: Vec<u8>) {
        self.own.insert((cf, key), None);
    }

    /// All keys with `prefix`, with their values, in order.
    ///
    /// # Errors
    /// When RocksDB fails.
    pub fn scan(&self, cf: Cf, prefix: &[u8]) -> Result<Vec<Pair>, StoreError> {
        self.scan_limit(cf, prefix, usize::MAX)
    }

    /// Whether any key has `prefix`.
    ///
    /// # Errors
    /// When RocksDB fails.
    pub fn any(&self, cf: Cf, prefix: &[u8]) -> Result<bool, StoreError> {
        Ok(!self.scan_limit(cf, prefix, 1)?.is_empty())
    }

    fn scan_limit(&self, cf: Cf, prefix: &[u8], limit: usize) -> Result<Vec<Pair>, StoreError> {
        let mut found: BTreeMap<Vec<u8>, Option<Vec<u8>>> = BTreeMap::new();
        for changes in [self.before, &self.own] {
            let range = changes.range((cf, prefix.to_vec())..);
            for ((_, key), value) in
                range.take_while(|((c, key), _)| *c == cf && key.starts_with(prefix))
            {
                found.insert(key.clone(), value.clone());
            }
        }
        let mut live = found.values().filter(|value| value.is_some()).count();
        let items = self
            .db
            .iterator_cf(family(self.db, cf), IteratorMode::From(prefix, Direction::Forward));
        for item in items {
            if live >= limit {
                break;
            }
            let (key, value) = item?;
            if !key.starts_with(prefix) {
                break;
            }
            found.entry(key.into_vec()).or_insert_with(|| {
                live += 1;
                Some(value.into_vec())
            });
        }
        Ok(found.into_iter().filter_map(|(key, value)| Some((key, value?))).collect())
    }
}

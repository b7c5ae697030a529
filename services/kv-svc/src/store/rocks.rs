//! The key space in RocksDB.
//!
//! RocksDB's own log is off: the replicated log repeats what a crash took from the memtables. All spaces are
//! flushed together, so the applied position never runs ahead of the data.

use std::path::Path;

use bytes::Bytes;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType,
    FlushOptions, Options, ReadOptions, SnapshotWithThreadMode, WriteBatch, WriteOptions,
};

use crate::engine::store::{Batch, Scan, Space, Store, StoreError, Usage, View, Visit, Write};

/// Bytes of memtables, all spaces together.
const WRITE_BUFFER: usize = 32 << 20;
/// Bytes of cached blocks.
const BLOCK_CACHE: usize = 32 << 20;

/// A RocksDB database as a store.
pub struct RocksStore {
    db: DB,
    write: WriteOptions,
}

impl std::fmt::Debug for RocksStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RocksStore").field("path", &self.db.path()).finish_non_exhaustive()
    }
}

fn name(space: Space) -> &'static str {
    match space {
        Space::Revisions => "rev",
        Space::Heads => "cur",
        Space::System => "sys",
    }
}

fn failed(action: &'static str) -> impl FnOnce(rocksdb::Error) -> StoreError {
    move |error| StoreError { action, reason: error.into_string() }
}

fn space_options(cache: &Cache) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_bloom_filter(10.0, false);
    table.set_cache_index_and_filter_blocks(true);
    table.set_format_version(5);
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_write_buffer_size(WRITE_BUFFER / 2);
    options.set_max_write_buffer_number(3);
    options
}

impl RocksStore {
    /// Opens or creates the database in a folder.
    ///
    /// # Errors
    /// When the folder holds no usable database.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let cache = Cache::new_lru_cache(BLOCK_CACHE);
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_atomic_flush(true);
        options.set_db_write_buffer_size(WRITE_BUFFER);
        options.set_max_background_jobs(2);
        options.set_max_open_files(512);
        options.set_keep_log_file_num(2);
        options.set_paranoid_checks(true);
        options.set_bytes_per_sync(1 << 20);
        let families =
            Space::ALL.map(|space| ColumnFamilyDescriptor::new(name(space), space_options(&cache)));
        let db =
            DB::open_cf_descriptors(&options, dir, families).map_err(failed("open its folder"))?;
        let mut write = WriteOptions::default();
        write.disable_wal(true);
        Ok(Self { db, write })
    }

    fn family(&self, space: Space) -> &ColumnFamily {
        self.db.cf_handle(name(space)).expect("every space is created on open")
    }

    fn sum(&self, property: &str) -> u64 {
        let of = |space| self.db.property_int_value_cf(self.family(space), property);
        Space::ALL.into_iter().filter_map(|space| of(space).ok().flatten()).sum()
    }
}

impl Store for RocksStore {
    fn view(&self) -> Box<dyn View + '_> {
        Box::new(RocksView { store: self, snapshot: self.db.snapshot() })
    }

    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let value = self.db.get_cf(self.family(space), key).map_err(failed("read a key"))?;
        Ok(value.map(Bytes::from))
    }

    fn write(&self, batch: Batch) -> Result<(), StoreError> {
        let mut writes = WriteBatch::default();
        for change in batch {
            match change {
                Write::Put(space, key, value) => writes.put_cf(self.family(space), key, value),
                Write::Delete(space, key) => writes.delete_cf(self.family(space), key),
                Write::Clear(space) => {
                    self.view().scan(space, b"", None, &mut |key, _| {
                        writes.delete_cf(self.family(space), key);
                        Scan::More
                    })?;
                }
            }
        }
        self.db.write_opt(writes, &self.write).map_err(failed("write a batch"))
    }

    fn flush(&self) -> Result<(), StoreError> {
        let mut options = FlushOptions::default();
        options.set_wait(true);
        let families = Space::ALL.map(|space| self.family(space));
        self.db.flush_cfs_opt(&families, &options).map_err(failed("flush"))
    }

    fn reclaim(&self) -> Result<(), StoreError> {
        self.flush()?;
        for space in Space::ALL {
            self.db.compact_range_cf(self.family(space), None::<&[u8]>, None::<&[u8]>);
        }
        Ok(())
    }

    fn usage(&self) -> Usage {
        let memory = self.sum("rocksdb.cur-size-all-mem-tables");
        Usage {
            total: self.sum("rocksdb.total-sst-files-size") + memory,
            live: self.sum("rocksdb.estimate-live-data-size") + memory,
        }
    }
}

struct RocksView<'a> {
    store: &'a RocksStore,
    snapshot: SnapshotWithThreadMode<'a, DB>,
}

impl View for RocksView<'_> {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let value =
            self.snapshot.get_cf(self.store.family(space), key).map_err(failed("read a key"))?;
        Ok(value.map(Bytes::from))
    }

    fn scan(
        &self,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        let mut options = ReadOptions::default();
        if let Some(to) = to {
            if to <= from {
                return Ok(());
            }
            options.set_iterate_upper_bound(to);
        }
        let mut cursor = self.snapshot.raw_iterator_cf_opt(self.store.family(space), options);
        cursor.seek(from);
        while let Some((key, value)) = cursor.item() {
            if visit(key, value) == Scan::Stop {
                return Ok(());
            }
            cursor.next();
        }
        cursor.status().map_err(failed("scan"))
    }
}

//! RocksDB and its one writer.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::TrySendError;

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DB, Direction, IteratorMode, Options,
    WriteBatch, WriteOptions,
};
use tokio::sync::oneshot;

use super::txn::{Changes, Txn};
use super::{StoreError, rows};

/// Transactions that share one sync at most.
const GROUP: usize = 256;
/// Version of the layout on disk.
const SCHEMA: &[u8] = b"1";

/// Column families. Key parts are separated by a zero byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cf {
    /// `repo` -> when it was made.
    Repo,
    /// `repo, tag` -> digest.
    Tag,
    /// `repo, digest, tag`: tags of a manifest.
    TagRev,
    /// `repo, digest` -> [`super::ManifestRow`].
    Manifest,
    /// `repo, digest`: blobs of a repository.
    Link,
    /// `digest, repo`: repositories of a blob or manifest.
    LinkRev,
    /// `child, repo, parent`: who points at a blob or manifest.
    EdgeRev,
    /// `repo, subject, digest` -> descriptor.
    Referrer,
    /// `digest` -> size and place.
    Blob,
    /// `digest` -> bytes.
    Inline,
    /// `id` -> unfinished upload.
    Upload,
    /// `namespace, name` -> [`super::ImageRecord`].
    Image,
    /// `digest, namespace, name`: images that need a blob.
    ImageRev,
    /// `namespace, digest` -> labels; content a containerd client put.
    Content,
    /// `namespace, ref` -> unfinished content write.
    Ingest,
    /// `namespace, key` -> [`super::SnapshotRow`].
    Snapshot,
    /// `namespace, parent, key`: children of a snapshot.
    SnapshotRev,
    /// `due, digest`: content to look at for removal.
    GcQueue,
    /// `key` -> result of a build step.
    BuildCache,
    /// Schema version and counters.
    Meta,
}

impl Cf {
    const ALL: [(Self, &'static str); 20] = [
        (Self::Repo, "repo"),
        (Self::Tag, "tag"),
        (Self::TagRev, "tag_rev"),
        (Self::Manifest, "manifest"),
        (Self::Link, "link"),
        (Self::LinkRev, "link_rev"),
        (Self::EdgeRev, "edge_rev"),
        (Self::Referrer, "referrer"),
        (Self::Blob, "blob"),
        (Self::Inline, "inline"),
        (Self::Upload, "upload"),
        (Self::Image, "image"),
        (Self::ImageRev, "image_rev"),
        (Self::Content, "content"),
        (Self::Ingest, "ingest"),
        (Self::Snapshot, "snapshot"),
        (Self::SnapshotRev, "snapshot_rev"),
        (Self::GcQueue, "gc_queue"),
        (Self::BuildCache, "build_cache"),
        (Self::Meta, "meta"),
    ];

    fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

type Finish = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
type Job = Box<dyn FnOnce(&mut Txn<'_>) -> Option<Finish> + Send>;

struct Request {
    durable: bool,
    job: Job,
}

/// The metadata store. Clones share it.
#[derive(Clone)]
pub struct Db {
    /// Dropped before `db`: the database has to be closed by whoever drops the last clone, not by the writer's
    /// thread while the process already ends.
    writer: Arc<WriterThread>,
    db: Arc<DB>,
    broken: Arc<AtomicBool>,
}

/// The writer's queue and its thread, which ends with the last clone of [`Db`].
struct WriterThread {
    queue: Option<std::sync::mpsc::SyncSender<Request>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl WriterThread {
    fn try_send(&self, request: Request) -> Result<(), TrySendError<Request>> {
        match &self.queue {
            Some(queue) => queue.try_send(request),
            None => Err(TrySendError::Disconnected(request)),
        }
    }
}

impl Drop for WriterThread {
    fn drop(&mut self) {
        self.queue = None;
        let Some(thread) = self.thread.take() else { return };
        // A job may hold the last clone; its thread cannot wait for itself.
        if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
            tracing::error!("the metadata writer panicked");
        }
    }
}

impl std::fmt::Debug for Db {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Db").field("path", &self.db.path()).finish_non_exhaustive()
    }
}

impl Db {
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_max_background_jobs(2);
        options.set_max_open_files(256);
        options.set_recycle_log_file_num(2);
        options.set_keep_log_file_num(2);
        options.set_max_total_wal_size(64 << 20);
        options.set_db_write_buffer_size(16 << 20);
        let cache = Cache::new_lru_cache(16 << 20);
        let families = Cf::ALL.iter().map(|(_, name)| {
            let mut family = Options::default();
            let mut table = BlockBasedOptions::default();
            table.set_block_cache(&cache);
            table.set_bloom_filter(10.0, false);
            family.set_block_based_table_factory(&table);
            family.set_write_buffer_size(4 << 20);
            family.set_compression_type(rocksdb::DBCompressionType::Lz4);
            ColumnFamilyDescriptor::new(*name, family)
        });
        let db = Arc::new(DB::open_cf_descriptors(&options, path, families)?);
        let meta = family(&db, Cf::Meta);
        match db.get_cf(&meta, b"schema")? {
            None => db.put_cf(&meta, b"schema", SCHEMA)?,
            Some(found) if found == SCHEMA => {}
            Some(found) => {
                let found = String::from_utf8_lossy(&found).into_owned();
                return Err(StoreError::Meta(format!(
                    "{} has layout {found}, this program knows layout 1: use the newer program",
                    path.display()
                )));
            }
        }
        let (queue, requests) = std::sync::mpsc::sync_channel(4 * GROUP);
        let broken = Arc::new(AtomicBool::new(false));
        let writer = Writer { db: db.clone(), broken: broken.clone() };
        let thread = std::thread::Builder::new()
            .name("meta-writer".into())
            .spawn(move || writer.run(&requests))
            .map_err(|error| StoreError::io(path, error))?;
        let writer = Arc::new(WriterThread { queue: Some(queue), thread: Some(thread) });
        Ok(Self { writer, db, broken })
    }

    /// Runs `change` alone with all changes before it applied, and waits until its own are on disk.
    ///
    /// An error of `change` leaves nothing behind. With `durable` false, loss of power (not of the process) may
    /// lose the change.
    ///
    /// # Errors
    /// What `change` returns, or that the store failed.
    pub async fn write<T, E>(
        &self,
        durable: bool,
        change: impl FnOnce(&mut Txn<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        if self.broken.load(Ordering::Acquire) {
            return Err(StoreError::Closed("an earlier write to disk failed".to_owned()).into());
        }
        let (reply, answer) = oneshot::channel::<Result<T, E>>();
        let job: Job = Box::new(move |txn| match change(txn) {
            Err(error) => {
                // The caller may have gone; nothing was changed then.
                let _ = reply.send(Err(error));
                None
            }
            Ok(value) => Some(Box::new(move |done: Result<(), StoreError>| {
                // As above; the change stands.
                let _ = reply.send(done.map(|()| value).map_err(E::from));
            })),
        });
        let mut request = Request { durable, job };
        loop {
            match self.writer.try_send(request) {
                Ok(()) => break,
                Err(TrySendError::Full(back)) => {
                    request = back;
                    tokio::time::sleep(std::time::Duration::from_millis(2)).await;
                }
                Err(TrySendError::Disconnected(_)) => {
                    return Err(StoreError::Closed("the writer has ended".to_owned()).into());
                }
            }
        }
        match answer.await {
            Ok(result) => result,
            Err(_) => Err(StoreError::Closed("the writer has ended".to_owned()).into()),
        }
    }

    /// Whether a write failed and nothing more is accepted.
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// The value of a key.
    ///
    /// # Errors
    /// When RocksDB fails.
    pub fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.db.get_cf(&family(&self.db, cf), key)?)
    }

    /// The value of a key, read as JSON.
    ///
    /// # Errors
    /// When RocksDB fails or the row is damaged.
    pub fn row<T: serde::de::DeserializeOwned>(
        &self,
        cf: Cf,
        key: &[u8],
    ) -> Result<Option<T>, StoreError> {
        self.get(cf, key)?.map(|bytes| rows::decode(key, &bytes)).transpose()
    }

    /// Whether a key exists.
    ///
    /// # Errors
    /// When RocksDB fails.
    pub fn has(&self, cf: Cf, key: &[u8]) -> Result<bool, StoreError> {
        Ok(self.db.get_pinned_cf(&family(&self.db, cf), key)?.is_some())
    }

    /// Calls `visit` for keys from `start` on that begin with `prefix`, in order, until it says no.
    ///
    /// # Errors
    /// When RocksDB fails.
    pub fn scan(
        &self,
        cf: Cf,
        prefix: &[u8],
        start: &[u8],
        mut visit: impl FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        let from = if start < prefix { prefix } else { start };
        for item in
            self.db.iterator_cf(&family(&self.db, cf), IteratorMode::From(from, Direction::Forward))
        {
            let (key, value) = item?;
            if !key.starts_with(prefix) || !visit(&key, &value) {
                break;
            }
        }
        Ok(())
    }
}

pub(super) fn family(db: &DB, cf: Cf) -> &rocksdb::ColumnFamily {
    db.cf_handle(cf.name()).expect("every column family was created at open")
}

struct Writer {
    db: Arc<DB>,
    broken: Arc<AtomicBool>,
}

impl Writer {
    fn run(&self, requests: &std::sync::mpsc::Receiver<Request>) {
        while let Ok(first) = requests.recv() {
            let mut changes: Changes = BTreeMap::new();
            let mut finish = Vec::new();
            let mut durable = false;
            let mut next = Some(first);
            while let Some(request) = next.take() {
                let mut txn = Txn::new(&self.db, &changes);
                if let Some(done) = (request.job)(&mut txn) {
                    let own = txn.into_changes();
                    durable |= request.durable && !own.is_empty();
                    changes.extend(own);
                    finish.push(done);
                }
                if finish.len() < GROUP {
                    next = requests.try_recv().ok();
                }
            }
            let result = self.commit(changes, durable);
            if let Err(error) = &result {
                // After a failed sync nobody knows what is on disk: acknowledge nothing from here on.
                tracing::error!(%error, "metadata cannot be written; refusing further writes");
                self.broken.store(true, Ordering::Release);
            }
            for done in finish {
                done(result.clone());
            }
        }
    }

    fn commit(&self, changes: Changes, durable: bool) -> Result<(), StoreError> {
        if changes.is_empty() {
            return Ok(());
        }
        if self.broken.load(Ordering::Acquire) {
            return Err(StoreError::Closed("an earlier write to disk failed".to_owned()));
        }
        let mut batch = WriteBatch::default();
        for ((cf, key), value) in changes {
            let handle = family(&self.db, cf);
            match value {
                Some(value) => batch.put_cf(handle, key, value),
                None => batch.delete_cf(handle, key),
            }
        }
        let mut options = WriteOptions::default();
        options.set_sync(durable);
        Ok(self.db.write_opt(batch, &options)?)
    }
}

//! What the engine asks of a store: ordered spaces, atomic batches, consistent views.

use bytes::Bytes;
use thiserror::Error;

/// An ordered key space of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Space {
    /// Revision key to `mvccpb.KeyValue`, the bytes of etcd's bucket `key`.
    Revisions,
    /// User key to the `mvccpb.KeyValue` of its live version.
    Heads,
    /// `bucket NUL key` to the bytes etcd keeps in that bucket, and what the log needs.
    System,
}

impl Space {
    /// All spaces.
    pub const ALL: [Self; 3] = [Self::Revisions, Self::Heads, Self::System];
}

/// One change of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Sets a key.
    Put(Space, Bytes, Bytes),
    /// Removes a key.
    Delete(Space, Bytes),
    /// Removes every key of a space.
    Clear(Space),
}

/// Changes that become visible together, and survive together.
pub type Batch = Vec<Write>;

/// Why the store failed. Any write failure is final: the process must end and recover from the log.
#[derive(Debug, Error)]
#[error("the store cannot {action}: {reason}")]
pub struct StoreError {
    /// What was tried.
    pub action: &'static str,
    /// What the system said.
    pub reason: String,
}

/// Sizes of a store in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// What the store occupies.
    pub total: u64,
    /// What live data needs of it.
    pub live: u64,
}

/// Whether a scan goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scan {
    /// Next key, please.
    More,
    /// Enough.
    Stop,
}

/// Called with each key and value of a scan.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Scan + 'a;

/// The state of a store at one moment.
pub trait View {
    /// Value of a key.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Visits keys in order, from `from` up to but not including `to` (`None`: to the end).
    ///
    /// # Errors
    /// When the store cannot be read.
    fn scan(
        &self,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError>;
}

/// Durable ordered spaces.
///
/// A batch is atomic. Batches survive a crash in order up to some point, and all of them do after
/// [`Store::flush`]; what comes later is the log's to repeat.
pub trait Store: Send + Sync + 'static {
    /// The state now; later writes do not change it.
    fn view(&self) -> Box<dyn View + '_>;

    /// Value of a key now.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.view().get(space, key)
    }

    /// Applies a batch.
    ///
    /// # Errors
    /// When the store cannot be written.
    fn write(&self, batch: Batch) -> Result<(), StoreError>;

    /// Makes everything written so far durable.
    ///
    /// # Errors
    /// When the store cannot be written.
    fn flush(&self) -> Result<(), StoreError>;

    /// Gives back space of removed data.
    ///
    /// # Errors
    /// When the store cannot be written.
    fn reclaim(&self) -> Result<(), StoreError>;

    /// Sizes now.
    fn usage(&self) -> Usage;
}

/// Key of the system space.
pub fn system_key(bucket: &str, key: &[u8]) -> Bytes {
    let mut full = Vec::with_capacity(bucket.len() + 1 + key.len());
    full.extend_from_slice(bucket.as_bytes());
    full.push(0);
    full.extend_from_slice(key);
    full.into()
}

/// Every key and value of a bucket of the system space, keys without the bucket's name.
///
/// # Errors
/// When the store cannot be read.
pub fn bucket(view: &dyn View, bucket: &str) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
    let from = system_key(bucket, b"");
    let mut to = from.to_vec();
    *to.last_mut().expect("ends in NUL") = 1;
    let mut pairs = Vec::new();
    view.scan(Space::System, &from, Some(&to), &mut |key, value| {
        pairs.push((Bytes::copy_from_slice(&key[from.len()..]), Bytes::copy_from_slice(value)));
        Scan::More
    })?;
    Ok(pairs)
}

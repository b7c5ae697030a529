//! One process at a time: an exclusive lock on the file `lock`.

use std::fs::File;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use crate::Error;

/// Holds the lock until dropped.
#[derive(Debug)]
pub(crate) struct DirLock(#[allow(dead_code, reason = "kept open for its lock")] File);

impl DirLock {
    pub(crate) fn acquire(dir: &Path) -> Result<Self, Error> {
        let path = dir.join("lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(Error::io("open", &path))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::Locked { path }),
            Err(error) => Err(Error::io("lock", path)(error.into())),
        }
    }
}

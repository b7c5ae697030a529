//! The folder of records.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use prost::Message;

use crate::engine::error::{Error, Result};
use crate::engine::ports::Records;
use crate::engine::records::{ContainerRecord, SandboxRecord};

/// First bytes of every record: a name and the version of the format.
const MAGIC: &[u8; 8] = b"fltrec\0\x01";

/// Records below one folder.
#[derive(Debug)]
pub struct FileRecords {
    sandboxes: PathBuf,
    containers: PathBuf,
}

impl FileRecords {
    /// Opens the folder, making it if need be.
    ///
    /// # Errors
    /// When a folder cannot be made.
    pub fn open(root: &Path) -> io::Result<Self> {
        let (sandboxes, containers) = (root.join("sandboxes"), root.join("containers"));
        fs::create_dir_all(&sandboxes)?;
        fs::create_dir_all(&containers)?;
        Ok(Self { sandboxes, containers })
    }
}

impl Records for FileRecords {
    fn save_sandbox(&self, record: &SandboxRecord) -> Result<()> {
        save(&self.sandboxes.join(&record.id), record)
    }

    fn save_container(&self, record: &ContainerRecord) -> Result<()> {
        save(&self.containers.join(&record.id), record)
    }

    fn delete_sandbox(&self, id: &str) -> Result<()> {
        delete(&self.sandboxes.join(id))
    }

    fn delete_container(&self, id: &str) -> Result<()> {
        delete(&self.containers.join(id))
    }

    fn load(&self) -> Result<(Vec<SandboxRecord>, Vec<ContainerRecord>)> {
        Ok((load(&self.sandboxes)?, load(&self.containers)?))
    }
}

fn save(path: &Path, record: &impl Message) -> Result<()> {
    let body = record.encode_to_vec();
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&body);
    let partial = path.with_extension("partial");
    fs::write(&partial, bytes)
        .and_then(|()| fs::rename(&partial, path))
        .map_err(|error| Error::failed(format!("save {}", path.display()), error))
}

fn delete(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::failed(format!("delete {}", path.display()), error))
        }
        _ => Ok(()),
    }
}

fn load<T: Message + Default>(dir: &Path) -> Result<Vec<T>> {
    let fail =
        |error: io::Error| Error::failed(format!("read the records in {}", dir.display()), error);
    let mut records = Vec::new();
    for entry in fs::read_dir(dir).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        if path.extension().is_some() {
            // What was being written when the process died never counted; what was set aside stays.
            if path.extension().is_some_and(|extension| extension == "partial") {
                let _ = fs::remove_file(&path);
            }
            continue;
        }
        let bytes = fs::read(&path).map_err(fail)?;
        let decoded = bytes.strip_prefix(MAGIC.as_slice()).and_then(|body| T::decode(body).ok());
        match decoded {
            Some(record) => records.push(record),
            None => {
                let aside = path.with_extension("broken");
                tracing::error!(file = %path.display(), aside = %aside.display(), "a record cannot be read and is set aside");
                fs::rename(&path, &aside).map_err(fail)?;
            }
        }
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_and_broken_ones_are_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileRecords::open(dir.path()).unwrap();
        let sandbox =
            SandboxRecord { id: "a".into(), ip: "10.0.0.2".into(), ..SandboxRecord::default() };
        store.save_sandbox(&sandbox).unwrap();
        store
            .save_container(&ContainerRecord { id: "c".into(), ..ContainerRecord::default() })
            .unwrap();
        fs::write(dir.path().join("sandboxes/b"), b"garbage").unwrap();
        fs::write(dir.path().join("sandboxes/c.partial"), b"half").unwrap();
        let (sandboxes, containers) = store.load().unwrap();
        assert_eq!((sandboxes, containers.len()), (vec![sandbox], 1));
        assert!(
            dir.path().join("sandboxes/b.broken").exists()
                && !dir.path().join("sandboxes/c.partial").exists()
        );
        store.delete_sandbox("a").unwrap();
        store.delete_sandbox("a").unwrap();
        assert!(store.load().unwrap().0.is_empty());
    }

    #[test]
    fn mutated_records_never_panic() {
        let record = SandboxRecord {
            id: "x".repeat(64),
            made_cgroups: vec!["/a".into()],
            ..SandboxRecord::default()
        };
        let body = record.encode_to_vec();
        for index in 0..body.len() {
            for flip in [1, 0x80, 0xff] {
                let mut bytes = body.clone();
                bytes[index] ^= flip;
                // Any outcome but a panic will do.
                let _ = SandboxRecord::decode(bytes.as_slice());
            }
        }
    }
}

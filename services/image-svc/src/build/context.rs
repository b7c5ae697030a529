//! The build context: a tar stream, unpacked into a private folder.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::BuildError;
use super::ignore::Ignore;
use crate::store::{IngestFile, Mark, Store, StoreError};
use crate::unpack::{Target, View, unpack};

/// A context being received.
#[derive(Debug)]
pub struct Receiving {
    file: Option<IngestFile>,
    folder: PathBuf,
}

/// A complete context. Its folder goes when it is dropped.
#[derive(Debug)]
pub struct Context {
    folder: PathBuf,
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| StoreError::Closed(error.to_string()))
}

impl Receiving {
    pub(super) async fn begin(store: &Store) -> Result<Self, StoreError> {
        let name = uuid::Uuid::new_v4().to_string();
        let path = store.ingest_path(&name);
        let folder = store.ingest_path(&format!("{name}.context"));
        let file =
            blocking(move || IngestFile::open(&path, Mark::start(Default::default()))).await??;
        Ok(Self { file: Some(file), folder })
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// When the disk refuses them.
    pub async fn write(&mut self, chunk: Bytes) -> Result<(), BuildError> {
        let Some(mut file) = self.file.take() else { return Ok(()) };
        self.file = Some(blocking(move || file.append(&[chunk]).map(|()| file)).await??);
        Ok(())
    }

    /// Unpacks what was received.
    ///
    /// # Errors
    /// When it is no tar stream or tries to leave its folder.
    pub async fn finish(mut self) -> Result<Context, BuildError> {
        let context = Context { folder: self.folder.clone() };
        let (folder, path) =
            (self.folder.clone(), self.file.as_ref().map(|file| file.path().to_owned()));
        let unpacked = blocking(move || -> Result<(), BuildError> {
            std::fs::create_dir(&folder).map_err(|error| StoreError::io(&folder, error))?;
            let Some(path) = path else { return Ok(()) };
            let archive =
                std::fs::File::open(&path).map_err(|error| StoreError::io(&path, error))?;
            let size = archive.metadata().map_err(|error| StoreError::io(&path, error))?.len();
            if size == 0 {
                return Ok(());
            }
            let target = Target { upper: folder, lowers: Vec::new() };
            unpack(archive, size, &target, None).map(drop).map_err(BuildError::Context)
        })
        .await?;
        self.file.take().into_iter().for_each(IngestFile::discard);
        unpacked.map(|()| context)
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            file.discard();
        }
    }
}

impl Context {
    /// The context as a tree.
    pub(super) fn view(&self) -> Result<View, BuildError> {
        View::open(std::slice::from_ref(&self.folder)).map_err(BuildError::Context)
    }

    /// A private folder beside the context.
    pub(super) fn scratch(&self, name: &str) -> PathBuf {
        self.folder.with_extension(name)
    }

    /// The rules of `DOCKERFILE.dockerignore` or `.dockerignore`.
    pub(super) fn ignore(&self, dockerfile: &str) -> Result<Ignore, BuildError> {
        let view = self.view()?;
        for name in [format!("{dockerfile}.dockerignore"), ".dockerignore".to_owned()] {
            let text = view.text(&name).map_err(|error| StoreError::io(Path::new(&name), error))?;
            if let Some(text) = text {
                return Ok(Ignore::parse(&text));
            }
        }
        Ok(Ignore::default())
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // Swept at the next start otherwise.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

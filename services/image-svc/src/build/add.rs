//! COPY and ADD: which files go where. Runs on a blocking thread.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::ignore::{Ignore, pattern_regex};
use super::layer::{Content, Entries, Entry};
use crate::unpack::{NodeInfo, NodeKind, Plain, Target, View, join, unpack};

/// A COPY or ADD with everything expanded and looked up.
#[derive(Debug)]
pub(super) struct Job {
    /// Whether it is ADD: local archives are unpacked.
    pub(super) add: bool,
    pub(super) sources: Vec<String>,
    /// As written; relative to `working_dir`.
    pub(super) dest: String,
    pub(super) working_dir: String,
    pub(super) owner: Option<(u32, u32)>,
    pub(super) mode: Option<u32>,
    /// Whether owners of the source are kept when `owner` is not given: sources that are images have true ones.
    pub(super) keep_owner: bool,
    /// Latest time stamp allowed.
    pub(super) epoch: Option<i64>,
    /// Where archives of ADD may be unpacked.
    pub(super) scratch: PathBuf,
}

/// Gathers the entries of a layer.
struct Gather<'a> {
    job: &'a Job,
    from: &'a View,
    to: &'a View,
    ignore: Option<&'a Ignore>,
    entries: Entries,
}

impl Job {
    /// The entries the job adds to an image that looks like `to`.
    ///
    /// # Errors
    /// Says which source is missing or which destination impossible.
    pub(super) fn entries(
        &self,
        from: &View,
        to: &View,
        ignore: Option<&Ignore>,
    ) -> Result<Entries, String> {
        let verb = if self.add { "ADD" } else { "COPY" };
        let mut sources = Vec::new();
        for source in &self.sources {
            let found = matching(from, source, ignore)?;
            if found.is_empty() {
                let hint = if ignore.is_some() {
                    "in the build context (check .dockerignore)"
                } else {
                    "in the source stage or image"
                };
                return Err(format!("{verb}: {source:?} is not {hint}"));
            }
            sources.extend(found);
        }
        let into_folder = self.dest.ends_with('/')
            || matches!(self.dest.as_str(), "." | "..")
            || self.dest.ends_with("/.");
        if sources.len() > 1 && !into_folder {
            return Err(format!(
                "{verb} with more than one source file: the destination must be a folder and end with a /"
            ));
        }
        let dest = Path::new(&self.working_dir).join(&self.dest);
        let dest = to.resolve(&lexical(&dest)).map_err(|error| error.to_string())?;
        let mut gather = Gather { job: self, from, to, ignore, entries: Entries::new() };
        for source in sources {
            gather
                .source(&source, &dest, into_folder)
                .map_err(|reason| format!("{verb}: {reason}"))?;
        }
        Ok(gather.entries)
    }
}

/// Takes `.` and `..` out of a path as text; `..` stops at the root.
pub(super) fn lexical(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            std::path::Component::Normal(part) => clean.push(part),
            std::path::Component::ParentDir => drop(clean.pop()),
            _ => {}
        }
    }
    clean
}

/// Paths of a source, which may hold wildcards.
fn matching(from: &View, source: &str, ignore: Option<&Ignore>) -> Result<Vec<PathBuf>, String> {
    // `..` cannot leave the context: it stops at its root, as in docker.
    let clean = lexical(&Path::new("/").join(source.trim_start_matches('/')));
    let text = clean.to_string_lossy().trim_start_matches('/').to_owned();
    let kept =
        |path: &str| ignore.is_none_or(|ignore| !ignore.excludes(path) || ignore.may_keep_below());
    if !text.contains(['*', '?', '[']) {
        let plain = from.resolve_parent(&clean).map_err(|error| error.to_string())?;
        let there = from.info(&plain).map_err(|error| error.to_string())?.is_some();
        return Ok(if there && kept(&text) { vec![clean] } else { Vec::new() });
    }
    let mut found = vec![PathBuf::from("/")];
    for part in text.split('/') {
        let regex = pattern_regex(part, false)
            .ok_or_else(|| format!("pattern {source:?} does not parse"))?;
        let mut next = Vec::new();
        for folder in &found {
            let plain = from.resolve(folder).map_err(|error| error.to_string())?;
            for name in from.names(&plain).map_err(|error| error.to_string())? {
                if regex.is_match(&name.to_string_lossy()) {
                    next.push(folder.join(name));
                }
            }
        }
        found = next;
    }
    found.retain(|path| kept(path.to_string_lossy().trim_start_matches('/')));
    Ok(found)
}

impl Gather<'_> {
    fn source(&mut self, source: &Path, dest: &Plain, into_folder: bool) -> Result<(), String> {
        let text = |error: std::io::Error| format!("{}: {error}", source.display());
        let plain = self.from.resolve(source).map_err(|error| error.to_string())?;
        let missing = || format!("{} leads nowhere", source.display());
        let info = self.from.info(&plain).map_err(text)?.ok_or_else(missing)?;
        let dest_info = self.to.info(dest).map_err(text)?;
        let dest_is_folder = matches!(dest_info, Some(NodeInfo { kind: NodeKind::Folder, .. }));
        if info.kind == NodeKind::Folder {
            if dest_info.is_some() && !dest_is_folder {
                return Err(format!(
                    "cannot copy a folder to /{}, which is no folder",
                    join(dest).display()
                ));
            }
            self.parents(dest, true)?;
            return self.children(&plain, dest);
        }
        if self.job.add && info.kind == NodeKind::File && self.archive(&plain, dest)? {
            return Ok(());
        }
        let mut target = dest.clone();
        if into_folder || dest_is_folder {
            target.push(source.file_name().map(OsString::from).unwrap_or_default());
        }
        self.parents(&target[..target.len().saturating_sub(1)], true)?;
        self.node(&plain, &info, &target)
    }

    /// Makes the folders of a path that the image lacks.
    fn parents(&mut self, path: &[OsString], create: bool) -> Result<(), String> {
        for depth in 1..=path.len() {
            let part = &path[..depth];
            let name = join(part);
            let there = self.to.info(part).map_err(|error| error.to_string())?;
            match there {
                Some(NodeInfo { kind: NodeKind::Folder, .. }) => {}
                Some(_) => return Err(format!("/{} is no folder", name.display())),
                None if create && !self.entries.contains_key(&name) => {
                    let (uid, gid) = self.job.owner.unwrap_or((0, 0));
                    let mtime = self.job.epoch.unwrap_or(0);
                    self.entries.insert(
                        name,
                        Entry { content: Content::Folder, mode: 0o755, uid, gid, mtime },
                    );
                }
                None => {}
            }
        }
        Ok(())
    }

    fn children(&mut self, folder: &Plain, dest: &Plain) -> Result<(), String> {
        let fail = |error: std::io::Error| format!("/{}: {error}", join(folder).display());
        for name in self.from.names(folder).map_err(fail)? {
            let (mut from, mut to) = (folder.clone(), dest.clone());
            from.push(name.clone());
            to.push(name);
            let Some(info) = self.from.info(&from).map_err(fail)? else { continue };
            let out =
                self.ignore.is_some_and(|ignore| ignore.excludes(&join(&from).to_string_lossy()));
            let is_folder = info.kind == NodeKind::Folder;
            if out && !(is_folder && self.ignore.is_some_and(Ignore::may_keep_below)) {
                continue;
            }
            if is_folder {
                let before = self.entries.len();
                self.children(&from, &to)?;
                if out {
                    // Kept files below an ignored folder need their folders.
                    if self.entries.len() > before {
                        self.parents(&to, true)?;
                    }
                    continue;
                }
            }
            self.node(&from, &info, &to)?;
        }
        Ok(())
    }

    fn node(&mut self, from: &Plain, info: &NodeInfo, to: &Plain) -> Result<(), String> {
        let content = match &info.kind {
            NodeKind::Folder => Content::Folder,
            NodeKind::Symlink(target) => Content::Symlink(target.clone()),
            NodeKind::File => {
                let file = self
                    .from
                    .file(from)
                    .map_err(|error| format!("/{}: {error}", join(from).display()))?;
                Content::File(file, info.size)
            }
            NodeKind::Special => {
                return Err(format!("/{} is a device, pipe or socket", join(from).display()));
            }
        };
        let kept = if self.job.keep_owner { (info.uid, info.gid) } else { (0, 0) };
        let (uid, gid) = self.job.owner.unwrap_or(kept);
        let mode = match info.kind {
            NodeKind::Symlink(_) => 0o777,
            _ => self.job.mode.unwrap_or(info.mode),
        };
        let mtime = self.job.epoch.map_or(info.mtime, |epoch| epoch.min(info.mtime));
        self.entries.insert(join(to), Entry { content, mode, uid, gid, mtime });
        Ok(())
    }

    /// Unpacks a local archive into `dest`; `false` when the file is none.
    fn archive(&mut self, from: &Plain, dest: &Plain) -> Result<bool, String> {
        let open = || self.from.file(from).map_err(|error| error.to_string());
        match archive_kind(open()?).map_err(|error| error.to_string())? {
            ArchiveKind::None => return Ok(false),
            ArchiveKind::Unsupported(kind) => {
                return Err(format!("not supported yet: unpacking a {kind} archive"));
            }
            ArchiveKind::Tar => {}
        }
        let file = open()?;
        let size = file.metadata().map_err(|error| error.to_string())?.len();
        std::fs::create_dir_all(&self.job.scratch).map_err(|error| error.to_string())?;
        let folder = self.job.scratch.join(uuid::Uuid::new_v4().to_string());
        std::fs::create_dir(&folder).map_err(|error| error.to_string())?;
        unpack(file, size, &Target { upper: folder.clone(), lowers: Vec::new() }, None)
            .map_err(|error| error.to_string())?;
        let view = View::open(&[folder]).map_err(|error| error.to_string())?;
        let job = Job {
            add: false,
            keep_owner: true,
            sources: Vec::new(),
            scratch: PathBuf::new(),
            dest: String::new(),
            working_dir: String::new(),
            ..*self.job
        };
        let mut inner =
            Gather { job: &job, from: &view, to: self.to, ignore: None, entries: Entries::new() };
        inner.parents(dest, true)?;
        inner.children(&Plain::new(), dest)?;
        let entries = inner.entries;
        self.entries.extend(entries);
        Ok(true)
    }
}

enum ArchiveKind {
    None,
    Tar,
    Unsupported(&'static str),
}

fn archive_kind(file: std::fs::File) -> std::io::Result<ArchiveKind> {
    let mut head = Vec::new();
    file.try_clone()?.take(8).read_to_end(&mut head)?;
    if head.starts_with(b"BZh") {
        return Ok(ArchiveKind::Unsupported("bzip2"));
    }
    if head.starts_with(&[0xfd, b'7', b'z', b'X', b'Z']) {
        return Ok(ArchiveKind::Unsupported("xz"));
    }
    std::io::Seek::seek(&mut &file, std::io::SeekFrom::Start(0))?;
    let mut block = Vec::new();
    let Ok(plain) = crate::unpack::Decompressed::new(file) else { return Ok(ArchiveKind::None) };
    // A file that only looks compressed is copied as it is.
    if plain.take(512).read_to_end(&mut block).is_err() || block.len() < 512 {
        return Ok(ArchiveKind::None);
    }
    let ustar = block[257..].starts_with(b"ustar");
    Ok(if ustar { ArchiveKind::Tar } else { ArchiveKind::None })
}

/// Whether a source of ADD is not a path.
pub(super) fn is_remote(source: &str) -> bool {
    let bytes = Path::new(source).as_os_str().as_bytes();
    [&b"http://"[..], b"https://", b"git@", b"git://", b"ssh://"]
        .iter()
        .any(|scheme| bytes.starts_with(scheme))
}

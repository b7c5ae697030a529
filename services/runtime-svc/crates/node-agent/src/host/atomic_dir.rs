//! A folder whose files change all at once: `..data` links to the folder of the current generation, and every
//! file is a link through `..data`. Readers that keep the path open see either the old or the new set.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileContent {
    /// Bytes.
    pub data: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
}

/// Files by relative path.
pub type Files = BTreeMap<String, FileContent>;

/// Makes `dir` hold exactly `files`; nothing is touched when it does already. `group` owns them when given.
///
/// # Errors
/// When a path leaves the folder or the disk refuses.
pub fn write(dir: &Path, files: &Files, group: Option<u32>) -> io::Result<()> {
    for name in files.keys() {
        check(name)?;
    }
    fs::create_dir_all(dir)?;
    fs::set_permissions(dir, Permissions::from_mode(0o755))?;
    let current = fs::read_link(dir.join("..data")).ok();
    if current
        .as_ref()
        .is_some_and(|generation| read(&dir.join(generation)).is_ok_and(|old| old == *files))
    {
        return Ok(());
    }
    let generation = new_generation(dir)?;
    for (name, content) in files {
        let path = generation.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, &content.data)?;
        let mode = if group.is_some() { content.mode | 0o040 } else { content.mode };
        std::os::unix::fs::chown(&path, None, group)?;
        fs::set_permissions(&path, Permissions::from_mode(mode))?;
    }
    let name = PathBuf::from(generation.file_name().unwrap_or_default());
    let fresh = dir.join("..data_tmp");
    let _ = fs::remove_file(&fresh);
    symlink(&name, &fresh)?;
    fs::rename(&fresh, dir.join("..data"))?;
    link_names(dir, files)?;
    if let Some(old) = current {
        fs::remove_dir_all(dir.join(old))?;
    }
    Ok(())
}

fn check(name: &str) -> io::Result<()> {
    let path = Path::new(name);
    let fine =
        !name.is_empty() && path.components().all(|part| matches!(part, Component::Normal(_)));
    if fine && !name.starts_with("..") {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("{name:?} is no path inside the volume"),
    ))
}

fn new_generation(dir: &Path) -> io::Result<PathBuf> {
    for _ in 0..16 {
        let path = dir.join(format!("..{:016x}", rand::random::<u64>()));
        match DirBuilder::new().mode(0o755).create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
            Ok(()) => return Ok(path),
        }
    }
    Err(io::Error::other("no free name for a new generation"))
}

fn link_names(dir: &Path, files: &Files) -> io::Result<()> {
    let wanted: std::collections::BTreeSet<&str> =
        files.keys().filter_map(|name| name.split('/').next()).collect();
    for name in &wanted {
        let link = dir.join(name);
        let target = Path::new("..data").join(name);
        if fs::read_link(&link).is_ok_and(|old| old == target) {
            continue;
        }
        symlink(target, link)?;
    }
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with("..") && !wanted.contains(name.as_ref()) {
            fs::remove_file(dir.join(name.as_ref()))?;
        }
    }
    Ok(())
}

fn read(generation: &Path) -> io::Result<Files> {
    let mut files = Files::new();
    let mut open = vec![generation.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let mode = fs::metadata(&path)?.permissions().mode() & 0o777;
            let name = path
                .strip_prefix(generation)
                .map_err(io::Error::other)?
                .to_string_lossy()
                .into_owned();
            files.insert(name, FileContent { data: fs::read(&path)?, mode });
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(list: &[(&str, &str)]) -> Files {
        list.iter()
            .map(|(name, data)| {
                ((*name).to_owned(), FileContent { data: data.as_bytes().to_vec(), mode: 0o644 })
            })
            .collect()
    }

    #[test]
    fn content_is_replaced_at_once() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &files(&[("a", "1"), ("d/b", "2")]), None).unwrap();
        let first = fs::read_link(dir.path().join("..data")).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("d/b")).unwrap(), "2");
        write(dir.path(), &files(&[("a", "1"), ("d/b", "2")]), None).unwrap();
        assert_eq!(
            fs::read_link(dir.path().join("..data")).unwrap(),
            first,
            "unchanged content is not rewritten"
        );
        write(dir.path(), &files(&[("a", "3")]), None).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("a")).unwrap(), "3");
        assert!(!dir.path().join("d").exists() && !dir.path().join(first).exists());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    }

    #[test]
    fn paths_outside_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for bad in ["../x", "/x", "a/../../x", "", "..x", "."] {
            assert!(write(dir.path(), &files(&[(bad, "")]), None).is_err(), "{bad:?}");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}

//! Mounts below the pods' folders: tmpfs for memory-backed volumes, bind mounts for sub-paths.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rustix::fs::{Mode, OFlags, ResolveFlags};

/// Mounts a tmpfs at `dir` unless something is mounted there. `size` in bytes; 0 is the kernel's default.
///
/// # Errors
/// When the folder cannot be made or mounted.
pub fn ensure_tmpfs(dir: &Path, size: u64) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    if mounts_below(dir)?.iter().any(|mounted| mounted == dir) {
        return Ok(());
    }
    let options = if size > 0 { format!("mode=0777,size={size}") } else { "mode=0777".to_owned() };
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), dir, Some("tmpfs"), flags, Some(options.as_str())).map_err(io::Error::from)
}

/// Binds `sub`, resolved strictly inside `volume`, at `target` and returns `target`.
///
/// A missing sub-path is made. The bind is taken from an open descriptor, so a container that swaps the path
/// for a link afterwards gains nothing.
///
/// # Errors
/// When the path leaves the volume or cannot be made or mounted.
pub fn bind_sub_path(volume: &Path, sub: &Path, target: &Path) -> io::Result<PathBuf> {
    if sub.is_absolute() || sub.components().any(|part| part == std::path::Component::ParentDir) {
        let text = format!("{} is no path inside the volume", sub.display());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let root = File::open(volume)?;
    let open = |flags: OFlags| {
        rustix::fs::openat2(
            &root,
            sub,
            OFlags::PATH | OFlags::CLOEXEC | flags,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        )
    };
    let opened = match open(OFlags::empty()) {
        Err(rustix::io::Errno::NOENT) => {
            make_dirs(&root, sub)?;
            open(OFlags::DIRECTORY)
        }
        other => other,
    };
    let opened = opened.map_err(io::Error::from)?;
    let kind = rustix::fs::fstat(&opened).map_err(io::Error::from)?;
    if mounts_below(target)?.iter().any(|mounted| mounted == target) {
        return Ok(target.to_owned());
    }
    if let Some(parent) = target.parent() {
        std::fs::create_dir_all(parent)?;
    }
    if rustix::fs::FileType::from_raw_mode(kind.st_mode).is_dir() {
        std::fs::create_dir_all(target)?;
    } else {
        File::create(target)?;
    }
    let source = format!("/proc/self/fd/{}", opened.as_raw_fd());
    mount(
        Some(source.as_str()),
        target,
        None::<&str>,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        None::<&str>,
    )
    .map_err(io::Error::from)?;
    Ok(target.to_owned())
}

fn make_dirs(root: &File, sub: &Path) -> io::Result<()> {
    let mut current = rustix::fs::openat(
        root,
        ".",
        OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    for part in sub.components() {
        let std::path::Component::Normal(name) = part else { continue };
        match rustix::fs::mkdirat(&current, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        current = rustix::fs::openat(&current, name, flags, Mode::empty())?;
    }
    Ok(())
}

/// Unmounts everything at or below `path`, the deepest first.
///
/// # Errors
/// When a mount is in use.
pub fn unmount_below(path: &Path) -> io::Result<()> {
    let mut mounts = mounts_below(path)?;
    mounts.sort_by_key(|mounted| std::cmp::Reverse(mounted.components().count()));
    for mounted in mounts {
        match umount2(&mounted, MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) | Err(nix::errno::Errno::EINVAL) => {}
            Err(error) => {
                let text = format!("cannot unmount {}: {error}", mounted.display());
                return Err(io::Error::new(io::Error::from(error).kind(), text));
            }
        }
    }
    Ok(())
}

fn mounts_below(path: &Path) -> io::Result<Vec<PathBuf>> {
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    let points =
        table.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape).map(PathBuf::from);
    Ok(points.filter(|point| point.starts_with(path)).collect())
}

/// Undoes the octal escapes of /proc/self/mountinfo (proc_pid_mountinfo(5)).
fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 4).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => out.push(char::from(code)),
            None => out.push('\\'),
        }
        rest = &rest[at + if code.is_some() { 4 } else { 1 }..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_unescaped() {
        assert_eq!(unescape(r"/a\040b\134c"), "/a b\\c");
        assert_eq!(unescape(r"/a\"), "/a\\");
    }

    #[test]
    fn sub_path_cannot_leave_the_volume() {
        if flotilla_testkit::skip_unless_root("sub_path_cannot_leave_the_volume") {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (volume, outside) = (dir.path().join("volume"), dir.path().join("outside"));
        std::fs::create_dir_all(&volume).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        std::fs::write(outside.join("secret"), "x").unwrap();
        std::os::unix::fs::symlink(&outside, volume.join("link")).unwrap();
        let target = dir.path().join("target");
        assert!(bind_sub_path(&volume, Path::new("link/secret"), &target).is_err());
        assert!(bind_sub_path(&volume, Path::new("../outside/secret"), &target).is_err());
        let made = bind_sub_path(&volume, Path::new("a/b"), &target).unwrap();
        std::fs::write(made.join("f"), "y").unwrap();
        assert_eq!(std::fs::read_to_string(volume.join("a/b/f")).unwrap(), "y");
        unmount_below(dir.path()).unwrap();
        assert!(!target.join("f").exists());
    }
}

//! Which hierarchies the host has, read from its mount table.

use std::fs;
use std::io;
use std::path::PathBuf;

/// The host's cgroup hierarchies.
#[derive(Debug, Clone)]
pub struct Cgroups(Layout);

#[derive(Debug, Clone)]
pub(super) enum Layout {
    V2 { root: PathBuf },
    V1 { controllers: Vec<Hierarchy>, unified: Option<PathBuf> },
}

/// One v1 tree; several controllers may share it.
#[derive(Debug, Clone)]
pub(super) struct Hierarchy {
    pub(super) root: PathBuf,
    names: Vec<String>,
}

impl Hierarchy {
    pub(super) fn has(&self, controller: &str) -> bool {
        self.names.iter().any(|name| name == controller)
    }
}

impl Cgroups {
    /// Reads the mount table of this process.
    ///
    /// # Errors
    /// When no cgroup hierarchy is mounted.
    pub fn detect() -> io::Result<Self> {
        Self::parse(&fs::read_to_string("/proc/self/mountinfo")?).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                "no cgroup file system is mounted below /sys/fs/cgroup",
            )
        })
    }

    fn parse(mountinfo: &str) -> Option<Self> {
        let mut controllers: Vec<Hierarchy> = Vec::new();
        let mut unified = None;
        for line in mountinfo.lines() {
            let (left, right) = line.split_once(" - ")?;
            let point = left.split(' ').nth(4)?;
            let mut right = right.split(' ');
            let (kind, options) = (right.next()?, right.nth(1)?);
            if !point.starts_with("/sys/fs/cgroup") {
                continue;
            }
            match kind {
                "cgroup2" => unified = Some(PathBuf::from(point)),
                "cgroup" => {
                    let names: Vec<String> = options.split(',').map(str::to_owned).collect();
                    controllers.push(Hierarchy { root: point.into(), names });
                }
                _ => {}
            }
        }
        match (controllers.is_empty(), unified) {
            (true, None) => None,
            (true, Some(root)) => Some(Self(Layout::V2 { root })),
            (false, unified) => Some(Self(Layout::V1 { controllers, unified })),
        }
    }

    /// Whether v2 holds the controllers.
    pub fn is_v2(&self) -> bool {
        matches!(self.0, Layout::V2 { .. })
    }

    pub(super) fn layout(&self) -> &Layout {
        &self.0
    }

    /// Roots of all hierarchies; the v2 one last.
    pub fn roots(&self) -> impl Iterator<Item = &PathBuf> {
        let (controllers, last) = match &self.0 {
            Layout::V2 { root } => (&[][..], Some(root)),
            Layout::V1 { controllers, unified } => (controllers.as_slice(), unified.as_ref()),
        };
        controllers.iter().map(|hierarchy| &hierarchy.root).chain(last)
    }

    /// Folder of cgroup `path` in the tree of a v1 controller, or in the v2 tree.
    pub fn controller_dir(&self, controller: &str, path: &str) -> Option<PathBuf> {
        let relative = path.trim_start_matches('/');
        match &self.0 {
            Layout::V2 { root } => Some(root.join(relative)),
            Layout::V1 { controllers, .. } => controllers
                .iter()
                .find(|hierarchy| hierarchy.has(controller))
                .map(|h| h.root.join(relative)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_told_apart() {
        let v2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert!(Cgroups::parse(v2).unwrap().is_v2());
        let hybrid = "31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                      32 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let hybrid = Cgroups::parse(hybrid).unwrap();
        assert!(!hybrid.is_v2());
        assert_eq!(
            hybrid.controller_dir("cpuacct", "/a").unwrap(),
            PathBuf::from("/sys/fs/cgroup/cpu,cpuacct/a")
        );
        assert_eq!(hybrid.roots().last().unwrap(), &PathBuf::from("/sys/fs/cgroup/unified"));
        assert!(Cgroups::parse("1 1 0:1 / / rw - ext4 /dev/vda rw\n").is_none());
    }
}

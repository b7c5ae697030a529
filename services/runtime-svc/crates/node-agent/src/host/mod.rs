//! The node itself: files, mounts, cgroups, /proc.

pub mod atomic_dir;
pub mod certificates;
pub mod cgroups;
pub mod last_words;
pub mod machine;
pub mod paths;
pub mod resolv;
pub mod tmpfs;

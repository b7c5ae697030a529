//! Where cargo put the binaries of the workspace.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;

static BUILT: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Path of the workspace binary `name`, built if need be in the profile of the running test.
///
/// # Panics
/// When cargo cannot build it.
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its executable");
    let profile = test.ancestors().nth(2).expect("tests lie in target/PROFILE/deps").to_path_buf();
    let path = profile.join(name);
    // Whoever built the whole workspace before says so: cargo would build anew with other features otherwise.
    if std::env::var_os("FLOTILLA_BUILT").is_some() && path.exists() {
        return path;
    }
    let mut built = BUILT.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if !built.iter().any(|done| done == name) {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--quiet", "--package", name, "--bin", name]);
        if profile.file_name().is_some_and(|p| p == "release") {
            cargo.arg("--release");
        }
        let status = cargo.status().expect("cargo runs");
        assert!(status.success(), "cargo could not build {name}");
        built.push(name.to_owned());
    }
    path
}

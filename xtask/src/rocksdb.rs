//! Compiles RocksDB once per machine and keeps the archive in the user's cache.
//!
//! The build script of `librocksdb-sys` skips its twenty CPU minutes of C++ when `ROCKSDB_LIB_DIR` names a
//! folder with the finished archive. The Makefile exports that variable when the folder is there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// Must equal the version in Cargo.lock: the bindings come from the crate's own headers.
const SYS_VERSION: &str = "0.19.0+11.8.1";

/// Builds the archive when it is missing and prints the folder that holds it.
pub fn prebuild() -> Result<()> {
    ensure_version_matches_lock()?;
    let dir = cache_dir()?;
    if !dir.join("librocksdb.a").exists() {
        build_into(&dir)?;
    }
    println!("{}", dir.display());
    Ok(())
}

fn cache_dir() -> Result<PathBuf> {
    let home = std::env::var_os("HOME").context("HOME is not set")?;
    let version = SYS_VERSION.replace('+', "-");
    Ok(Path::new(&home).join(".cache/flotilla").join(format!("rocksdb-{version}")))
}

fn ensure_version_matches_lock() -> Result<()> {
    let lock = fs::read_to_string(crate::root().join("Cargo.lock")).context("read Cargo.lock")?;
    ensure!(
        lock.contains(&format!("name = \"librocksdb-sys\"\nversion = \"{SYS_VERSION}\"")),
        "Cargo.lock has another librocksdb-sys than {SYS_VERSION}: change SYS_VERSION in xtask/src/rocksdb.rs"
    );
    Ok(())
}

fn build_into(dir: &Path) -> Result<()> {
    let work = tempfile::tempdir()?;
    fs::create_dir_all(work.path().join("src"))?;
    fs::write(work.path().join("src/lib.rs"), "")?;
    fs::write(
        work.path().join("Cargo.toml"),
        format!(
            "[package]\nname = \"rocksdb-prebuild\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\
             [dependencies]\nlibrocksdb-sys = {{ version = \"={}\", default-features = false, \
             features = [\"bindgen-runtime\", \"lz4\", \"zstd\"] }}\n",
            SYS_VERSION.split('+').next().unwrap_or(SYS_VERSION)
        ),
    )?;
    eprintln!("compiling RocksDB {SYS_VERSION}: about ten minutes on two cores, once per machine");
    let status = Command::new("cargo")
        .args(["build", "--release", "--target-dir", "target"])
        .current_dir(work.path())
        .env_remove("ROCKSDB_LIB_DIR")
        .env_remove("CARGO_TARGET_DIR")
        .status()
        .context("run cargo")?;
    ensure!(status.success(), "the RocksDB build failed: {status}");
    let archive = find_archive(&work.path().join("target/release/build"))?;
    fs::create_dir_all(dir)?;
    let partial = dir.join(".librocksdb.a.partial");
    fs::copy(&archive, &partial)?;
    fs::rename(&partial, dir.join("librocksdb.a"))?;
    Ok(())
}

fn find_archive(build: &Path) -> Result<PathBuf> {
    for entry in fs::read_dir(build)? {
        let archive = entry?.path().join("out/librocksdb.a");
        if archive.exists() {
            return Ok(archive);
        }
    }
    bail!("no librocksdb.a below {}", build.display())
}

//! Builds the container images: static binaries on the host, then `docker build` from a folder of files.
//!
//! No registry is asked for anything. The engine is whatever `docker` reaches.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::root;

/// Binaries, and with the same names the targets of the Dockerfile.
const BINARIES: [&str; 8] = [
    "kv-svc",
    "image-svc",
    "runtime-svc",
    "scheduler-svc",
    "metrics-svc",
    "dns-svc",
    "gateway",
    "flotilla",
];

/// Builds every image as `flotilla/NAME:dev`.
pub fn build() -> Result<()> {
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let target = target_dir();
    compile(&triple)?;
    let context = target.join("images");
    if context.exists() {
        fs::remove_dir_all(&context)?;
    }
    fs::create_dir_all(context.join("bin"))?;
    fs::create_dir_all(context.join("empty"))?;
    for name in BINARIES {
        let from = target.join(&triple).join("release").join(name);
        fs::copy(&from, context.join("bin").join(name))
            .with_context(|| format!("copy {}", from.display()))?;
    }
    collect_with_libraries(Path::new("/usr/sbin/nft"), &context.join("nft"))?;
    for name in BINARIES {
        run(Command::new("docker")
            .args(["build", "--quiet", "--target", name, "--tag", &format!("flotilla/{name}:dev")])
            .arg("--file")
            .arg(root().join("Dockerfile"))
            .arg(&context))?;
    }
    Ok(())
}

fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// An explicit `--target` keeps the static flag away from build scripts and proc macros, which cannot be static.
fn compile(triple: &str) -> Result<()> {
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--release", "--target", triple]).current_dir(root());
    BINARIES.iter().for_each(|name| {
        cargo.args(["--bin", name]);
    });
    run(cargo.env("RUSTFLAGS", "-C target-feature=+crt-static"))
}

/// Copies a program and the shared libraries it loads to the same places below `into`.
fn collect_with_libraries(program: &Path, into: &Path) -> Result<()> {
    let output = Command::new("ldd").arg(program).output().context("run ldd")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let libraries = text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from);
    for file in std::iter::once(program.to_path_buf()).chain(libraries) {
        let to = into.join(file.strip_prefix("/").unwrap_or(&file));
        fs::create_dir_all(to.parent().context("an absolute path")?)?;
        fs::copy(&file, &to).with_context(|| format!("copy {}", file.display()))?;
    }
    Ok(())
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("run {:?}", command.get_program()))?;
    ensure!(status.success(), "{command:?} failed: {status}");
    Ok(())
}

//! Layout rules of the workspace that neither cargo nor clippy checks.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Production lines a file may have before it must be split.
const MAX_LINES: usize = 500;
/// Lines a `main.rs` may have: it parses, wires telemetry and calls `run`.
const MAX_MAIN: usize = 80;
/// Folder names that say nothing about their content.
const VAGUE: &[&str] = &["utils", "util", "common", "helpers", "helper", "misc"];

/// Checks every crate below `root` and reports all findings at once.
pub fn check(root: &Path) -> Result<()> {
    let mut findings = Vec::new();
    for top in ["crates", "services", "gateway", "cli", "xtask", "tests", "bench", "examples"] {
        walk(&root.join(top), &mut |path| check_file(root, path, &mut findings))?;
    }
    if findings.is_empty() {
        println!("rooms are in order");
        return Ok(());
    }
    bail!("{} findings:\n  {}", findings.len(), findings.join("\n  "))
}

fn check_file(root: &Path, path: &Path, findings: &mut Vec<String>) {
    let name = path.strip_prefix(root).unwrap_or(path).display().to_string();
    let stem = path.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
    if VAGUE.contains(&stem) {
        findings.push(format!("{name}: name the file after what it does"));
    }
    let Ok(text) = fs::read_to_string(path) else { return };
    if path.file_name().is_some_and(|f| f == "Cargo.toml") {
        check_manifest(&name, &text, findings);
        return;
    }
    let production = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default().lines().count();
    let is_test = name.contains("/tests/") || name.starts_with("tests/") || stem.ends_with("_test");
    if !is_test && production > MAX_LINES {
        findings.push(format!("{name}: {production} lines, {MAX_LINES} allowed"));
    }
    if name.ends_with("src/main.rs") && production > MAX_MAIN {
        findings.push(format!("{name}: {production} lines, {MAX_MAIN} allowed"));
    }
    if name.contains("/src/api/") && text.contains("use crate::store") {
        findings.push(format!("{name}: api must not import store"));
    }
    if name.contains("/src/engine/")
        && ["use tonic", "use hyper", "use rocksdb"].iter().any(|u| text.contains(u))
    {
        findings.push(format!("{name}: engine must not know the wire or the disk"));
    }
}

fn check_manifest(name: &str, text: &str, findings: &mut Vec<String>) {
    if text.contains("[package]") && !text.contains("[lints]\nworkspace = true") {
        findings.push(format!("{name}: misses `[lints] workspace = true`"));
    }
    let is_service = name.starts_with("services/") || name.starts_with("gateway/");
    for service in ["kv-svc", "image-svc", "runtime-svc", "scheduler-svc", "metrics-svc", "dns-svc"]
    {
        let own = name.starts_with(&format!("services/{service}/"));
        if is_service && !own && text.contains(&format!("\n{service} =")) {
            findings
                .push(format!("{name}: services talk over the wire, not through crate {service}"));
        }
    }
}

fn walk(dir: &Path, visit: &mut impl FnMut(&Path)) -> Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    let mut entries: Vec<PathBuf> = fs::read_dir(dir)
        .with_context(|| format!("list {}", dir.display()))?
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if path.is_dir() {
            if !matches!(name, "gen" | "target" | "node_modules") {
                walk(&path, visit)?;
            }
        } else if name.ends_with(".rs") || name == "Cargo.toml" {
            visit(&path);
        }
    }
    Ok(())
}

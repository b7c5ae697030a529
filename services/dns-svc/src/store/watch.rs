//! Reads zone files again when they changed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use regex::Regex;
use tokio::task::AbortHandle;

use super::read_zone;
use crate::engine::{Zone, Zones};
use crate::wire::Name;

/// Settings of `file`.
#[derive(Debug, Clone)]
pub struct FileOptions {
    /// The file.
    pub file: PathBuf,
    /// Zones it is read for.
    pub zones: Vec<Name>,
    /// Pause between looks; zero for never.
    pub reload: Duration,
    /// Whether the time of the file decides instead of the SOA's serial.
    pub by_mtime: bool,
    /// Names below these go on to the next plugin if they are not there.
    pub fallthrough: Vec<Name>,
}

/// Settings of `auto`.
#[derive(Debug, Clone)]
pub struct AutoOptions {
    /// The directory.
    pub directory: PathBuf,
    /// Which of its files.
    pub pattern: Regex,
    /// Origin of a file, with `{1}` for what the pattern's first group matched.
    pub template: String,
    /// Names below these are served.
    pub zones: Vec<Name>,
    /// Pause between looks; zero for never.
    pub reload: Duration,
    /// Names below these go on to the next plugin if they are not there.
    pub fallthrough: Vec<Name>,
}

/// Reads the file now and then again and again.
///
/// # Errors
/// When it cannot be read now; later errors are logged and the zone stays as it was.
pub fn follow_file(
    options: &FileOptions,
    zones: &Arc<Zones>,
) -> Result<Option<AbortHandle>, String> {
    let read = |options: &FileOptions| -> Result<Vec<Arc<Zone>>, String> {
        options.zones.iter().map(|origin| read_zone(&options.file, origin).map(Arc::new)).collect()
    };
    zones.store(read(options)?);
    if options.reload.is_zero() {
        return Ok(None);
    }
    let (options, zones) = (options.clone(), Arc::downgrade(zones));
    let task = tokio::spawn(async move {
        let mut seen = modified(&options.file);
        loop {
            tokio::time::sleep(options.reload).await;
            let Some(zones) = zones.upgrade() else { return };
            let found = modified(&options.file);
            if options.by_mtime && found == seen {
                continue;
            }
            seen = found;
            let again = options.clone();
            let read = tokio::task::spawn_blocking(move || read(&again)).await;
            match read {
                Ok(Ok(list)) if options.by_mtime || is_new(&zones.load(), &list) => {
                    zones.store(list);
                    tracing::info!("plugin/file: Successfully reloaded zone in {:?}", options.file);
                }
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::error!("plugin/file: the old zone is kept: {error}"),
                Err(error) => tracing::error!("plugin/file: {error}"),
            }
        }
    });
    Ok(Some(task.abort_handle()))
}

/// Reads all zones of a directory now and then again and again; files that cannot be read are logged.
pub fn follow_directory(options: &AutoOptions, zones: &Arc<Zones>) -> Option<AbortHandle> {
    zones.store(scan(options, &zones.load()));
    if options.reload.is_zero() {
        return None;
    }
    let (options, zones) = (options.clone(), Arc::downgrade(zones));
    let task = tokio::spawn(async move {
        loop {
            tokio::time::sleep(options.reload).await;
            let Some(zones) = zones.upgrade() else { return };
            let (again, old) = (options.clone(), zones.load());
            if let Ok(list) = tokio::task::spawn_blocking(move || scan(&again, &old)).await {
                zones.store(list);
            }
        }
    });
    Some(task.abort_handle())
}

fn scan(options: &AutoOptions, old: &[Arc<Zone>]) -> Vec<Arc<Zone>> {
    let mut found: BTreeMap<Name, PathBuf> = BTreeMap::new();
    for entry in std::fs::read_dir(&options.directory).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(groups) = options.pattern.captures(&name) else { continue };
        let mut origin = options.template.clone();
        for (index, group) in groups.iter().enumerate() {
            origin = origin.replace(&format!("{{{index}}}"), group.map_or("", |g| g.as_str()));
        }
        if let Ok(origin) = Name::parse(&origin) {
            found.insert(origin.to_lowercase(), entry.path());
        }
    }
    let mut list = Vec::new();
    for (origin, file) in found {
        let known = old.iter().find(|zone| *zone.origin() == origin);
        match (read_zone(&file, &origin), known) {
            (Ok(zone), Some(known)) if zone.serial() == known.serial() => list.push(known.clone()),
            (Ok(zone), _) => list.push(Arc::new(zone)),
            (Err(error), known) => {
                tracing::warn!("plugin/auto: {error}");
                list.extend(known.cloned());
            }
        }
    }
    list
}

fn is_new(old: &[Arc<Zone>], new: &[Arc<Zone>]) -> bool {
    old.iter().zip(new).any(|(old, new)| old.serial() != new.serial())
}

fn modified(file: &Path) -> Option<std::time::SystemTime> {
    std::fs::metadata(file).and_then(|meta| meta.modified()).ok()
}

//! `file_sd_configs`: JSON or YAML lists of target groups.
//!
//! Files are looked at every second by size and time of change, and read anew when those differ or the refresh
//! interval has passed. A file that cannot be read keeps the groups it had.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Change, Group, addresses};
use crate::config::{FileSdConfig, StaticConfig, expand};

const LOOK: Duration = Duration::from_secs(1);

type Stamp = (u64, Option<SystemTime>);

pub(super) async fn run(
    number: usize,
    config: FileSdConfig,
    sender: mpsc::Sender<Change>,
    stop: CancellationToken,
) {
    let refresh = Duration::from_millis(config.refresh_interval.0.max(1000).cast_unsigned());
    let mut known: BTreeMap<PathBuf, (Stamp, Vec<Group>)> = BTreeMap::new();
    let mut sent: Option<Vec<Group>> = None;
    let mut read_all_at = Instant::now();
    loop {
        let all = Instant::now() >= read_all_at;
        if all {
            read_all_at = Instant::now() + refresh;
        }
        look(&config, &mut known, all);
        let groups: Vec<Group> = known.values().flat_map(|(_, groups)| groups.clone()).collect();
        if sent.as_ref() != Some(&groups) {
            if sender.send((number, groups.clone())).await.is_err() {
                return;
            }
            sent = Some(groups);
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

fn look(config: &FileSdConfig, known: &mut BTreeMap<PathBuf, (Stamp, Vec<Group>)>, all: bool) {
    let paths: Vec<PathBuf> = config.files.iter().flat_map(|pattern| expand(pattern)).collect();
    known.retain(|path, _| paths.contains(path));
    for path in paths {
        let Ok(meta) = std::fs::metadata(&path) else {
            known.remove(&path);
            continue;
        };
        let stamp = (meta.len(), meta.modified().ok());
        if !all && known.get(&path).is_some_and(|(before, _)| *before == stamp) {
            continue;
        }
        match read(&path) {
            Ok(groups) => drop(known.insert(path, (stamp, groups))),
            Err(error) => {
                let fresh = known.get(&path).is_none_or(|(before, _)| *before != stamp);
                if fresh {
                    tracing::error!(path = %path.display(), error, "error reading file");
                }
                known.entry(path).or_default().0 = stamp;
            }
        }
    }
}

fn read(path: &Path) -> Result<Vec<Group>, String> {
    let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    let list: Vec<StaticConfig> = match extension {
        "json" => serde_json::from_str(&text).map_err(|e| e.to_string())?,
        "yml" | "yaml" => serde_norway::from_str::<Option<_>>(&text)
            .map_err(|e| e.to_string())?
            .unwrap_or_default(),
        other => {
            return Err(format!(
                "retrieve targets from {other:?} files: only .json, .yml and .yaml are read"
            ));
        }
    };
    let groups = list.into_iter().map(|group| {
        let mut labels = group.labels;
        labels.insert("__meta_filepath".to_owned(), path.display().to_string());
        Group { targets: addresses(&group.targets), labels }
    });
    Ok(groups.collect())
}

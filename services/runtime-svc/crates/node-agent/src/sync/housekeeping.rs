//! What nobody waits for: rotated logs, unused images.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::agent::Agent;
use crate::engine::observed::RunState;
use crate::engine::time;

const ROTATE: Duration = Duration::from_secs(10);
const COLLECT: Duration = Duration::from_secs(300);
/// Images younger than this are kept (kubelet's `imageMinimumGCAge`).
const MIN_AGE: i64 = 120_000_000_000;

/// Rotates logs and collects images for as long as the agent lives.
pub async fn follow(agent: Arc<Agent>) {
    let logs = async {
        loop {
            tokio::time::sleep(ROTATE).await;
            rotate_all(&agent).await;
        }
    };
    let images = async {
        let mut seen = BTreeMap::new();
        loop {
            tokio::time::sleep(COLLECT).await;
            if let Err(error) = collect_images(&agent, &mut seen).await {
                tracing::warn!(%error, "images are not collected");
            }
        }
    };
    tokio::join!(logs, images);
}

async fn rotate_all(agent: &Agent) {
    let uids: Vec<String> = agent.pods.read().keys().cloned().collect();
    for uid in uids {
        let Ok(seen) = agent.cri.observe(&uid).await else { return };
        for run in seen
            .runs
            .iter()
            .filter(|run| run.state == RunState::Running && !run.log_path.is_empty())
        {
            let path = Path::new(&run.log_path);
            if std::fs::metadata(path).map_or(0, |meta| meta.len()) < agent.settings.log_max_size {
                continue;
            }
            if let Err(error) = rotate(agent, &run.id, path).await {
                tracing::warn!(log = run.log_path, %error, "the log is not rotated");
            }
        }
    }
}

/// Moves the log aside and has the runtime open a new one. If it does not, the log is moved back: no line is lost.
async fn rotate(agent: &Agent, id: &str, path: &Path) -> std::io::Result<()> {
    let mut old = rotated(path)?;
    let keep =
        usize::try_from(agent.settings.log_max_files.saturating_sub(2)).unwrap_or(usize::MAX);
    while old.len() > keep {
        std::fs::remove_file(old.remove(0))?;
    }
    let stamp = time::micro_time(time::now()).replace([':', '-', 'T', 'Z', '.'], "");
    let aside = PathBuf::from(format!("{}.{stamp}", path.display()));
    std::fs::rename(path, &aside)?;
    if let Err(status) = agent.cri.reopen_log(id).await {
        std::fs::rename(&aside, path)?;
        return Err(std::io::Error::other(status.message().to_owned()));
    }
    Ok(())
}

/// Former files of a log, oldest first.
pub fn rotated(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    let Some(folder) = path.parent() else { return Ok(Vec::new()) };
    let prefix = format!("{}.", path.file_name().unwrap_or_default().to_string_lossy());
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix))
        })
        .collect();
    found.sort();
    Ok(found)
}

async fn collect_images(
    agent: &Agent,
    seen: &mut BTreeMap<String, i64>,
) -> Result<(), tonic::Status> {
    let now = time::now();
    let images = agent.cri.images().await?;
    seen.retain(|id, _| images.iter().any(|image| image.id == *id));
    let used = images_in_use(agent);
    for image in &images {
        let names = image.repo_tags.iter().chain(&image.repo_digests).chain([&image.id]);
        if names.into_iter().any(|name| used.contains(name)) {
            seen.insert(image.id.clone(), now);
        } else {
            seen.entry(image.id.clone()).or_insert(now);
        }
    }
    let (high, low) = agent.settings.image_gc;
    let Some(fs) = agent.cri.image_fs().await?.and_then(|fs| fs.fs_id) else { return Ok(()) };
    let usage = crate::host::machine::usage(Path::new(&fs.mountpoint));
    let percent = |available: i64| 100 - available.saturating_mul(100) / usage.disk_total.max(1);
    if percent(usage.disk_available) < i64::from(high) {
        return Ok(());
    }
    let mut unused: Vec<_> = images
        .iter()
        .filter(|image| !image.pinned && seen.get(&image.id).is_some_and(|at| now - at > MIN_AGE))
        .collect();
    unused.sort_by_key(|image| seen.get(&image.id).copied().unwrap_or(0));
    let mut available = usage.disk_available;
    for image in unused {
        if percent(available) <= i64::from(low) {
            break;
        }
        agent.cri.remove_image(&image.id).await?;
        available = available.saturating_add(i64::try_from(image.size).unwrap_or(0));
        tracing::info!(image = image.id, "removed an unused image");
    }
    Ok(())
}

fn images_in_use(agent: &Agent) -> BTreeSet<String> {
    let pods = agent.pods.read();
    let statuses = pods.values().flat_map(|pod| {
        let status = &pod.status;
        status
            .container_statuses
            .iter()
            .chain(&status.init_container_statuses)
            .chain(&status.ephemeral_container_statuses)
    });
    statuses.flat_map(|status| [status.image.clone(), status.image_id.clone()]).collect()
}

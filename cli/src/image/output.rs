//! What is printed.
#![allow(clippy::print_stdout, reason = "the output of a command")]

use flotilla_proto::image::flotilla::image::v1::{ImageSummary, InspectResponse, RemoveResponse};
use serde_json::{Value, json};

/// `sha256:abc...` as people quote it.
pub(super) fn short(id: &str) -> &str {
    let hex = id.strip_prefix("sha256:").unwrap_or(id);
    &hex[..hex.len().min(12)]
}

/// Bytes as `12.3MB`.
pub(super) fn human(bytes: i64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 1000.0 {
            return if unit == "B" {
                format!("{value:.0}{unit}")
            } else {
                format!("{value:.1}{unit}")
            };
        }
        value /= 1000.0;
    }
    format!("{value:.1}TB")
}

pub(super) fn list(images: &[ImageSummary], quiet: bool) {
    if quiet {
        images.iter().for_each(|image| println!("{}", image.id));
        return;
    }
    let mut rows = vec![[
        "REPOSITORY".to_owned(),
        "TAG".into(),
        "IMAGE ID".into(),
        "PLATFORM".into(),
        "SIZE".into(),
    ]];
    for image in images {
        let names = if image.tags.is_empty() {
            vec!["<none>:<none>".to_owned()]
        } else {
            image.tags.clone()
        };
        for name in names {
            let (repository, tag) = name.rsplit_once(':').unwrap_or((name.as_str(), "<none>"));
            let (id, platform) = (short(&image.id).to_owned(), image.platform.clone());
            rows.push([repository.to_owned(), tag.to_owned(), id, platform, human(image.size)]);
        }
    }
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or_default();
    let widths = [width(0), width(1), width(2), width(3)];
    for [repository, tag, id, platform, size] in &rows {
        let [a, b, c, d] = widths;
        println!("{repository:a$}   {tag:b$}   {id:c$}   {platform:d$}   {size}");
    }
}

pub(super) fn inspect(images: &[InspectResponse]) {
    let shown: Vec<Value> = images.iter().map(describe).collect();
    println!("{}", serde_json::to_string_pretty(&shown).unwrap_or_default());
}

fn describe(image: &InspectResponse) -> Value {
    let summary = image.image.clone().unwrap_or_default();
    let document = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap_or_default();
    let config = document(&image.config);
    json!({
        "Id": summary.id,
        "RepoTags": summary.tags,
        "RepoDigests": summary.digests,
        "Created": config.get("created"),
        "Architecture": config.get("architecture"),
        "Os": config.get("os"),
        "Size": summary.size,
        "ChainId": image.chain_id,
        "Config": config.get("config"),
        "RootFS": config.get("rootfs"),
        "Manifest": document(&image.manifest),
    })
}

pub(super) fn removed(removed: &RemoveResponse) {
    removed.untagged.iter().for_each(|name| println!("Untagged: {name}"));
    if !removed.deleted.is_empty() {
        println!("Deleted: {}", removed.deleted);
    }
}

pub(super) fn line(text: &str) {
    println!("{text}");
}

//! Finding targets: fixed lists, files, the Kubernetes API.
//!
//! A provider always sends all of its groups; what is not in the newest list is gone.

mod file;
mod kube_labels;
mod kube_roles;
mod kubernetes;

use std::collections::BTreeMap;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::config::ScrapeConfig;

/// Targets that share labels.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Group {
    pub(super) targets: Vec<BTreeMap<String, String>>,
    pub(super) labels: BTreeMap<String, String>,
}

impl Group {
    /// The targets, each with the group's labels.
    pub(super) fn targets(&self) -> impl Iterator<Item = BTreeMap<String, String>> {
        self.targets.iter().map(|own| {
            let mut all = self.labels.clone();
            all.extend(own.clone());
            all
        })
    }
}

/// A provider's number and its groups.
pub(super) type Change = (usize, Vec<Group>);

/// The label with a target's address.
const ADDRESS: &str = "__address__";

fn addresses(targets: &[String]) -> Vec<BTreeMap<String, String>> {
    targets.iter().map(|t| BTreeMap::from([(ADDRESS.to_owned(), t.clone())])).collect()
}

/// Starts a section's providers; answers how many there are.
pub(super) fn start(
    config: &ScrapeConfig,
    sender: &mpsc::Sender<Change>,
    stop: &CancellationToken,
) -> usize {
    let groups: Vec<Group> = config
        .static_configs
        .iter()
        .map(|s| Group { targets: addresses(&s.targets), labels: s.labels.clone() })
        .collect();
    let fixed = sender.clone();
    tokio::spawn(async move {
        // The pool may have ended already.
        let _ = fixed.send((0, groups)).await;
    });
    let mut next = 1;
    for files in &config.file_sd_configs {
        tokio::spawn(file::run(next, files.clone(), sender.clone(), stop.clone()));
        next += 1;
    }
    for kube in &config.kubernetes_sd_configs {
        tokio::spawn(kubernetes::run(next, kube.clone(), sender.clone(), stop.clone()));
        next += 1;
    }
    next
}

//! Reports one pod's status, the latest only, for as long as it takes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::agent::Agent;
use crate::engine::kube::{Pod, PodStatus};

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A report: the pod as it is known to the API server, and its status.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Name and namespace.
    pub pod: Arc<Pod>,
    /// Uid of the API object; a static pod's mirror has its own.
    pub uid: String,
    /// What to say.
    pub status: PodStatus,
}

/// Writes reports in the background.
#[derive(Debug)]
pub struct StatusWriter {
    latest: watch::Sender<Option<Report>>,
    written: watch::Receiver<Option<PodStatus>>,
    task: JoinHandle<()>,
}

impl StatusWriter {
    /// A writer that takes `known` as reported.
    pub fn new(agent: Arc<Agent>, known: PodStatus) -> Self {
        let (latest, reports) = watch::channel(None);
        let (done, written) = watch::channel(Some(known));
        let task = tokio::spawn(write(agent, reports, done));
        Self { latest, written, task }
    }

    /// Reports `report` unless it says nothing new.
    pub fn report(&self, report: Report) {
        self.latest.send_if_modified(|latest| {
            let same = latest
                .as_ref()
                .is_some_and(|old| old.status == report.status && old.uid == report.uid);
            *latest = Some(report);
            !same
        });
    }

    /// Waits until the latest report is written.
    pub async fn flush(&self) {
        let Some(wanted) = self.latest.borrow().as_ref().map(|report| report.status.clone()) else {
            return;
        };
        let mut written = self.written.clone();
        // The writer ends only with its pod.
        let _ = written.wait_for(|status| status.as_ref() == Some(&wanted)).await;
    }
}

impl Drop for StatusWriter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn write(
    agent: Arc<Agent>,
    mut reports: watch::Receiver<Option<Report>>,
    done: watch::Sender<Option<PodStatus>>,
) {
    let mut pause = FIRST_PAUSE;
    let mut uid = String::new();
    while reports.changed().await.is_ok() {
        loop {
            let Some(report) = reports.borrow_and_update().clone() else { break };
            let told = (report.uid == uid || uid.is_empty())
                && done.borrow().as_ref() == Some(&report.status);
            if told || report.uid.is_empty() || agent.api.client().is_none() {
                done.send_replace(Some(report.status));
                break;
            }
            match agent.api.patch_status(&report.pod, &report.uid, &report.status).await {
                Ok(()) => {
                    pause = FIRST_PAUSE;
                    uid = report.uid;
                    done.send_replace(Some(report.status));
                    break;
                }
                // Gone, or another pod of that name: nobody wants this status any more.
                Err(error) if error.is_not_found() || error.is_conflict() => {
                    done.send_replace(Some(report.status));
                    break;
                }
                Err(error) => {
                    tracing::warn!(pod = report.pod.full_name(), %error, "the status was not taken");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }
}

//! Watches the runtime: a full look each second, and at once when it reports an event.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};

use super::agent::Agent;
use super::dispatcher::Input;

const PERIOD: Duration = Duration::from_secs(1);

/// Sends snapshots for as long as the agent lives, and keeps `runtime_up` true to life.
pub async fn follow(agent: Arc<Agent>, inputs: mpsc::Sender<Input>) {
    let wake = Arc::new(Notify::new());
    let events = events(agent.clone(), wake.clone());
    let looks = looks(agent, inputs, wake);
    tokio::select! {
        () = events => {}
        () = looks => {}
    }
}

async fn looks(agent: Arc<Agent>, inputs: mpsc::Sender<Input>, wake: Arc<Notify>) {
    let mut last = None;
    loop {
        match look(&agent).await {
            Ok(snapshot) => {
                if !agent.runtime_up.send_replace(true) {
                    tracing::info!(runtime = agent.cri.runtime_name().0, "the runtime answers");
                }
                if last.as_ref() != Some(&snapshot) {
                    if inputs.send(Input::Snapshot(snapshot.clone())).await.is_err() {
                        return;
                    }
                    last = Some(snapshot);
                }
            }
            Err(error) => {
                if agent.runtime_up.send_replace(false) || last.is_none() {
                    tracing::warn!(
                        error = error.message(),
                        "the runtime does not answer; waiting for it"
                    );
                }
                last = Some(Default::default());
            }
        }
        tokio::select! {
            () = tokio::time::sleep(PERIOD) => {}
            () = wake.notified() => {}
        }
    }
}

async fn look(agent: &Agent) -> Result<crate::remote::cri::Snapshot, tonic::Status> {
    if !*agent.runtime_up.borrow() {
        agent.cri.version().await?;
        if let Some(driver) = agent.cri.cgroup_driver().await {
            *agent.cgroup_driver.write() = driver;
        }
    }
    agent.cri.snapshot().await
}

async fn events(agent: Arc<Agent>, wake: Arc<Notify>) {
    loop {
        match agent.cri.events().await {
            Ok(mut stream) => {
                while let Ok(Some(_)) = stream.message().await {
                    wake.notify_one();
                }
            }
            Err(status) if status.code() == tonic::Code::Unimplemented => {
                return std::future::pending().await;
            }
            Err(_) => {}
        }
        tokio::time::sleep(PERIOD).await;
    }
}

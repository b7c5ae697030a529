//! `flotilla down`, and the cleaning that every stop does.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use flotilla_config::ExitError;
use flotilla_proto::cri::runtime::v1::runtime_service_client::RuntimeServiceClient;
use flotilla_proto::cri::runtime::v1::{
    ListPodSandboxRequest, RemovePodSandboxRequest, StopPodSandboxRequest,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::args::DownArgs;
use crate::layout::Layout;
use crate::state::State;

const LIMIT: Duration = Duration::from_secs(60);

/// Stops what `up` started below this root.
///
/// # Errors
/// When nothing runs there, or it does not end in time.
pub async fn run(args: &DownArgs) -> Result<(), ExitError> {
    let layout = Layout::new(&args.root.root);
    match State::load(&layout.state()).map_err(ExitError::runtime)? {
        Some(state) if state.supervisor.is_alive() => stop_supervisor(&state).await?,
        Some(state) => stop_orphans(&layout, &state).await,
        None if args.purge => {}
        None => {
            return Err(ExitError::unavailable(format!(
                "nothing runs below {}",
                layout.root().display()
            )));
        }
    }
    if args.purge && layout.root().exists() {
        std::fs::remove_dir_all(layout.root()).map_err(|error| {
            ExitError::runtime(format!("cannot remove {}: {error}", layout.root().display()))
        })?;
    }
    Ok(())
}

async fn stop_supervisor(state: &State) -> Result<(), ExitError> {
    // It may have ended just now.
    let _ = kill(Pid::from_raw(state.supervisor.pid.cast_signed()), Signal::SIGTERM);
    let deadline = tokio::time::Instant::now() + LIMIT;
    while state.supervisor.is_alive() {
        if tokio::time::Instant::now() > deadline {
            return Err(ExitError::runtime(format!(
                "pid {} did not end within {LIMIT:?}",
                state.supervisor.pid
            )));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Ends services whose supervisor was killed, and their pods.
pub async fn stop_orphans(layout: &Layout, state: &State) {
    stop_pods(layout, state).await;
    for service in state.services.iter().rev() {
        let Some(process) = service.process.filter(|process| process.is_alive()) else { continue };
        let pid = Pid::from_raw(process.pid.cast_signed());
        // It may have ended just now.
        let _ = kill(pid, Signal::SIGTERM);
        let deadline = tokio::time::Instant::now() + LIMIT / 4;
        while process.is_alive() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if process.is_alive() {
            let _ = kill(pid, Signal::SIGKILL);
        }
    }
    // Absent already is as good as removed.
    let _ = std::fs::remove_file(layout.state());
}

/// Stops and removes all pods of this machine's runtime-svc, then the network they shared.
///
/// Pods outlive a crash or an upgrade of the daemon on purpose; at the end of the suite they have to go. The
/// agent must not start them anew meanwhile, so runtime-svc's own SIGTERM comes right after.
pub async fn stop_pods(layout: &Layout, state: &State) {
    let Some(service) = state.services.iter().find(|service| service.name == "runtime-svc") else {
        return;
    };
    if let Some(process) = service.process.filter(|process| process.is_alive()) {
        let mut pods = Vec::new();
        if let Err(error) = remove_sandboxes(layout, &mut pods).await {
            say(&format!("some pods may be left: {error}"));
        }
        // It may have ended just now.
        let _ = kill(Pid::from_raw(process.pid.cast_signed()), Signal::SIGTERM);
        let deadline = tokio::time::Instant::now() + LIMIT / 4;
        while process.is_alive() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        remove_pod_cgroups(&pods);
    }
    for table in ["host", "svc"] {
        for family in ["inet", "ip", "ip6"] {
            quietly("nft", &["delete", "table", family, &format!("{}-{table}", state.bridge_name)]);
        }
    }
    quietly("ip", &["link", "delete", &state.bridge_name]);
}

/// Removes all sandboxes; adds the uids of their pods to `pods`.
async fn remove_sandboxes(layout: &Layout, pods: &mut Vec<String>) -> Result<(), String> {
    let socket = format!("unix://{}", layout.run("runtime.sock").display());
    let channel = flotilla_client::channel(&socket).map_err(|error| error.to_string())?;
    let mut runtime = RuntimeServiceClient::new(channel);
    let text = |status: tonic::Status| status.message().to_owned();
    // The agent may be creating a pod right now: ask again until none is left.
    for _ in 0..3 {
        let list = runtime
            .list_pod_sandbox(ListPodSandboxRequest::default())
            .await
            .map_err(text)?
            .into_inner();
        if list.items.is_empty() {
            break;
        }
        for sandbox in list.items {
            pods.extend(sandbox.metadata.map(|metadata| metadata.uid));
            let id = sandbox.id;
            runtime
                .stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: id.clone() })
                .await
                .map_err(text)?;
            runtime
                .remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: id })
                .await
                .map_err(text)?;
        }
    }
    Ok(())
}

/// Removes the cgroups the agent had made for these pods, and those above them once they are empty.
fn remove_pod_cgroups(pods: &[String]) {
    const CLASSES: [&str; 3] = ["", "burstable", "besteffort"];
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies =
        std::fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    for hierarchy in hierarchies.chain([root.to_owned()]) {
        let kubepods = hierarchy.join("kubepods");
        for class in CLASSES {
            for pod in pods {
                remove_empty(&kubepods.join(class).join(format!("pod{pod}")));
            }
        }
        // Still in use by another suite on this machine, they are not empty and stay.
        for class in ["burstable", "besteffort", ""] {
            let _ = std::fs::remove_dir(kubepods.join(class));
        }
    }
}

/// Removes a cgroup and those below it; the kernel refuses what is still in use.
fn remove_empty(cgroup: &Path) {
    for entry in std::fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_empty(&entry.path());
        }
    }
    let _ = std::fs::remove_dir(cgroup);
}

/// Runs a program that removes something; that there is nothing to remove is no failure.
fn quietly(program: &str, args: &[&str]) {
    let _ = Command::new(program).args(args).stdout(Stdio::null()).stderr(Stdio::null()).status();
}

#[allow(clippy::print_stderr, reason = "talks to the person at the terminal")]
fn say(text: &str) {
    eprintln!("flotilla: {text}");
}

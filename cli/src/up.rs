//! `flotilla up`.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use flotilla_config::ExitError;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::UpArgs;
use crate::config_files;
use crate::layout::Layout;
use crate::pki::KubeletClient;
use crate::plan::Plan;
use crate::state::State;
use crate::supervisor::Supervisor;
use crate::{doctor, down, table};

/// Set in the background process that `--detach` starts.
const BACKGROUND: &str = "FLOTILLA_BACKGROUND";

/// Starts everything; returns when it is stopped, or with `--detach` when it is ready.
pub async fn run(args: Box<UpArgs>) -> Result<(), ExitError> {
    let plan = Plan::new(&args);
    if let Some(state) = State::load(&plan.layout.state()).map_err(ExitError::runtime)? {
        if state.supervisor.is_alive() {
            return Err(ExitError::unavailable(format!(
                "already running (pid {}); `flotilla down` stops it, `flotilla status` shows it",
                state.supervisor.pid
            )));
        }
        down::stop_orphans(&plan.layout, &state).await;
    }
    let bin_dir = bin_dir(args.bin_dir.clone())?;
    doctor::refuse_if_impossible(&args, &plan, &bin_dir)?;
    prepare(&plan.layout).map_err(|error| {
        ExitError::unavailable(format!(
            "cannot write below {}: {error}; choose another --root",
            plan.layout.root().display()
        ))
    })?;
    config_files::write(&args, &plan).map_err(ExitError::unavailable)?;
    KubeletClient::paths(&plan.layout.pki()).ensure().map_err(ExitError::unavailable)?;
    if args.detach && std::env::var_os(BACKGROUND).is_none() {
        return detach(&plan.layout, Duration::from_secs(args.timeout)).await;
    }
    supervise(&args, plan, bin_dir).await
}

async fn supervise(args: &UpArgs, plan: Plan, bin_dir: PathBuf) -> Result<(), ExitError> {
    let mut stop = (
        signal(SignalKind::terminate()).map_err(ExitError::runtime)?,
        signal(SignalKind::interrupt()).map_err(ExitError::runtime)?,
    );
    let echo = std::env::var_os(BACKGROUND).is_none();
    let layout = plan.layout.clone();
    let mut supervisor = Supervisor::new(plan, bin_dir, args.bridge_name.clone(), echo)
        .map_err(ExitError::runtime)?;
    let started = tokio::select! {
        started = supervisor.start(Duration::from_secs(args.timeout)) => started,
        _ = stop.0.recv() => Err("stopped while starting".to_owned()),
        _ = stop.1.recv() => Err("stopped while starting".to_owned()),
    };
    let started = match started {
        Ok(()) => crate::config_files::apply_cluster_objects(args, supervisor.plan()).await,
        failed => failed,
    };
    if let Err(reason) = started {
        down::stop_pods(&layout, supervisor.state()).await;
        supervisor.stop().await;
        return Err(ExitError::unavailable(reason));
    }
    if echo {
        print_ready(supervisor.state(), &layout);
    }
    supervisor
        .watch(async {
            tokio::select! {
                _ = stop.0.recv() => {}
                _ = stop.1.recv() => {}
            }
        })
        .await;
    down::stop_pods(&layout, supervisor.state()).await;
    supervisor.stop().await;
    Ok(())
}

/// Starts this program again in the background and waits until it says that everything is ready.
async fn detach(layout: &Layout, limit: Duration) -> Result<(), ExitError> {
    let own = std::env::current_exe().map_err(ExitError::runtime)?;
    let log = fs::File::create(layout.log("flotilla")).map_err(ExitError::runtime)?;
    let mut child = Command::new("setsid")
        .arg(own)
        .args(std::env::args_os().skip(1))
        .env(BACKGROUND, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .map_err(|error| ExitError::runtime(format!("cannot start in the background: {error}")))?;
    let deadline = tokio::time::Instant::now() + limit + Duration::from_secs(5);
    loop {
        if let Ok(Some(state)) = State::load(&layout.state())
            && state.ready
            && state.supervisor.is_alive()
        {
            print_ready(&state, layout);
            return Ok(());
        }
        let ended = child.try_wait().map_err(ExitError::runtime)?;
        if ended.is_some_and(|status| !status.success()) || tokio::time::Instant::now() > deadline {
            let reason = fs::read_to_string(layout.log("flotilla")).unwrap_or_default();
            return Err(ExitError::unavailable(reason.trim().trim_start_matches("flotilla: ")));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn prepare(layout: &Layout) -> std::io::Result<()> {
    let private = |path: PathBuf| fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    fs::create_dir_all(layout.root())?;
    for folder in ["data", "config", "pki", "run", "logs"] {
        private(layout.root().join(folder))?;
    }
    private(layout.pki().join("kubelet"))
}

/// The folder of the service binaries.
pub fn bin_dir(chosen: Option<PathBuf>) -> Result<PathBuf, ExitError> {
    if let Some(dir) = chosen {
        return Ok(dir);
    }
    let own = std::env::current_exe().map_err(ExitError::runtime)?;
    own.parent().map(PathBuf::from).ok_or_else(|| ExitError::runtime("this program has no folder"))
}

#[allow(clippy::print_stdout, reason = "this is what the person at the terminal came for")]
fn print_ready(state: &State, layout: &Layout) {
    let rows: Vec<Vec<String>> = state
        .services
        .iter()
        .flat_map(|service| {
            service
                .endpoints
                .iter()
                .map(|(what, place)| vec![service.name.clone(), what.clone(), place.clone()])
        })
        .collect();
    let ports = &state.ports;
    let kubeconfig = layout.kubeconfig().display().to_string();
    println!("\n{}", table::render(&["SERVICE", "WHAT", "WHERE"], &rows));
    println!("Try:");
    println!("  export KUBECONFIG={kubeconfig}");
    println!("  kubectl get pods -A");
    println!("  etcdctl --endpoints 127.0.0.1:{} put greeting hello", ports.kv);
    println!("  docker push 127.0.0.1:{}/app:v1", ports.registry);
    println!("  dig @127.0.0.1 -p {} kubernetes.default.svc.cluster.local", ports.dns);
    println!("  curl 'http://127.0.0.1:{}/api/v1/query?query=up'", ports.metrics);
    println!("  curl -H 'Host: YOUR.HOST' http://127.0.0.1:{}/", ports.ingress);
    println!("  flotilla down --root {}", layout.root().display());
}

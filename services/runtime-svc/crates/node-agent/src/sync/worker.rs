//! The worker of one pod: looks, decides, acts, reports; one step at a time.

mod ending;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::agent::Agent;
use super::prober::Prober;
use super::start::{self, Start};
use super::status_writer::{Report, StatusWriter};
use super::stop;
use super::volumes::{self, Folders, Tokens};
use crate::engine::backoff::Backoff;
use crate::engine::kube::{Pod, PodStatus};
use crate::engine::observed::{Observed, Run, RunState};
use crate::engine::plan::{Plan, plan};
use crate::engine::status::{OWN_CONDITIONS, StatusInput, status};
use crate::engine::time;
use crate::host::last_words;

const RETRY: Duration = Duration::from_secs(1);
const RETRY_START: Duration = Duration::from_secs(3);
const REFRESH_VOLUMES: i64 = 60_000_000_000;

/// What a worker is told about its pod.
#[derive(Debug, Clone, Default)]
pub struct Desired {
    /// The newest object.
    pub pod: Arc<Pod>,
    /// The object no longer exists, or never did: end and forget whatever runs.
    pub gone: bool,
    /// Uid that the API server knows the pod by; empty when it knows none.
    pub api_uid: String,
    /// Refused: reason and message.
    pub refused: Option<(String, String)>,
}

impl Desired {
    fn must_end(&self) -> bool {
        self.gone || (!self.pod.is_static() && self.pod.metadata.deletion_timestamp.is_some())
    }
}

enum Next {
    Again,
    Wait(Duration),
    Finished,
}

/// One pod's worker.
#[derive(Debug)]
pub struct Worker {
    agent: Arc<Agent>,
    desired: watch::Receiver<Desired>,
    wake: Arc<Notify>,
    prober: Prober,
    writer: StatusWriter,
    restarts: Backoff,
    pulls: Backoff,
    tokens: Tokens,
    waiting: BTreeMap<String, (String, String)>,
    status: PodStatus,
    reported: PodStatus,
    ended: bool,
    failure: Option<(String, String)>,
    refreshed: i64,
}

impl Worker {
    /// A worker that follows `desired` and looks again whenever `wake` is notified.
    pub fn new(agent: Arc<Agent>, desired: watch::Receiver<Desired>, wake: Arc<Notify>) -> Self {
        let known = desired.borrow().pod.status.clone();
        Self {
            prober: Prober::new(agent.clone(), wake.clone()),
            writer: StatusWriter::new(agent.clone(), known.clone()),
            agent,
            desired,
            wake,
            restarts: Backoff::default(),
            pulls: Backoff::default(),
            tokens: Tokens::new(),
            waiting: BTreeMap::new(),
            status: known.clone(),
            reported: known,
            ended: false,
            failure: None,
            refreshed: 0,
        }
    }

    /// Works until the pod is gone and nothing of it is left.
    pub async fn run(mut self) {
        loop {
            let desired = self.desired.borrow_and_update().clone();
            let mut watcher = self.desired.clone();
            let next = if desired.must_end() {
                self.end(&desired).await
            } else {
                tokio::select! {
                    next = self.sync(&desired) => next,
                    // A pull or hook that takes long must not hold up the end; what it leaves is cleaned up there.
                    result = watcher.wait_for(Desired::must_end) => {
                        if result.is_err() { return }
                        Next::Again
                    }
                }
            };
            let pause = match next {
                Next::Again => continue,
                Next::Wait(pause) => pause,
                Next::Finished => return,
            };
            tokio::select! {
                changed = self.desired.changed() => if changed.is_err() { return },
                () = self.wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// The pod with the status this worker computed last, and conditions of others as the API server has them.
    fn pod(&self, desired: &Desired) -> Pod {
        let mut pod = (*desired.pod).clone();
        let foreign = std::mem::take(&mut pod.status.conditions).into_iter();
        let foreign: Vec<_> =
            foreign.filter(|c| !OWN_CONDITIONS.contains(&c.kind.as_str())).collect();
        pod.status = self.status.clone();
        pod.status.conditions.extend(foreign);
        pod
    }

    async fn look(&self, pod: &Pod) -> Option<Observed> {
        if !*self.agent.runtime_up.borrow() {
            return None;
        }
        match self.agent.cri.observe(pod.uid()).await {
            Ok(mut seen) => {
                for run in seen.runs.iter_mut().filter(|run| {
                    run.state == RunState::Exited
                        && run.message.is_empty()
                        && !run.last_words.is_empty()
                }) {
                    let log = (run.log_as_last_words && run.exit_code != 0)
                        .then(|| Path::new(&run.log_path));
                    run.message = last_words::read(Path::new(&run.last_words), log);
                }
                Some(seen)
            }
            Err(error) => {
                tracing::warn!(pod = pod.full_name(), %error, "cannot look at the pod");
                None
            }
        }
    }

    async fn sync(&mut self, desired: &Desired) -> Next {
        let pod = self.pod(desired);
        let Some(seen) = self.look(&pod).await else { return Next::Wait(RETRY) };
        if let Some(refused) = &desired.refused {
            (self.failure, self.ended) = (Some(refused.clone()), true);
        }
        if pod.spec.active_deadline_seconds.is_some_and(|limit| self.age(&pod) > limit)
            && !self.ended
        {
            let text = "Pod was active on the node longer than the specified deadline".to_owned();
            self.agent.recorder.pod(&pod, None, false, "DeadlineExceeded", text.clone());
            (self.failure, self.ended) = (Some(("DeadlineExceeded".to_owned(), text)), true);
        }
        if self.ended || pod.status.is_terminal() {
            return self.keep_ended(desired, &pod, &seen).await;
        }
        let step = {
            let prober = &self.prober;
            plan(&pod, &seen, &|run| prober.verdict(run))
        };
        self.probe(&pod, &seen);
        self.report(desired, &pod, &seen);
        let next = self.act(desired, &pod, &seen, step).await;
        self.collect(&pod, &seen).await;
        next
    }

    fn age(&self, pod: &Pod) -> i64 {
        let started = pod.status.start_time.as_deref().and_then(time::parse);
        started.map_or(0, |started| (time::now() - started) / 1_000_000_000)
    }

    async fn act(&mut self, desired: &Desired, pod: &Pod, seen: &Observed, step: Plan) -> Next {
        let grace = pod.spec.termination_grace_period_seconds.unwrap_or(30);
        if step.end_pod {
            if let Err(error) = stop::pod(&self.agent, pod, seen, grace, false).await {
                tracing::warn!(pod = pod.full_name(), %error, "cannot end the pod");
                return Next::Wait(RETRY);
            }
            if step.new_sandbox.is_none() {
                self.ended = true;
                return Next::Again;
            }
        }
        if let Some(attempt) = step.new_sandbox {
            return self.make_sandbox(pod, attempt).await;
        }
        for id in &step.discard {
            if let Err(error) = self.agent.cri.remove(id).await {
                tracing::warn!(pod = pod.full_name(), id, %error, "cannot remove a container that never ran");
                return Next::Wait(RETRY);
            }
        }
        if !step.end.is_empty() {
            return self.end_containers(pod, seen, &step, grace).await;
        }
        if step.start.is_empty() {
            if seen.sandbox().is_some_and(|s| s.ready)
                && time::now() - self.refreshed > REFRESH_VOLUMES
                && self.refreshed > 0
            {
                // Content of ConfigMaps, Secrets and tokens follows the API server.
                let _ = self.volumes(pod, seen).await;
            }
            return Next::Wait(self.idle(pod));
        }
        self.start(desired, pod, seen, &step).await
    }

    fn idle(&self, pod: &Pod) -> Duration {
        let left = pod.spec.active_deadline_seconds.map(|limit| (limit - self.age(pod)).max(0) + 1);
        let left = left.map(|seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
        left.map_or(self.agent.settings.sync_frequency, |left| {
            left.min(self.agent.settings.sync_frequency)
        })
    }

    async fn volumes(&mut self, pod: &Pod, seen: &Observed) -> Result<Folders, String> {
        let ips = self.ips(pod, seen);
        let folder = self.agent.paths.pod(pod.uid());
        std::fs::create_dir_all(&folder)
            .map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
        let folders = volumes::prepare(&self.agent, pod, &mut self.tokens, &ips).await;
        match &folders {
            Ok(_) => self.refreshed = time::now(),
            Err(text) => self.agent.recorder.pod(pod, None, true, "FailedMount", text.clone()),
        }
        folders
    }

    fn ips(&self, pod: &Pod, seen: &Observed) -> Vec<String> {
        if pod.spec.host_network {
            return vec![self.agent.node_ip.clone()];
        }
        seen.sandbox().map(|sandbox| sandbox.ips.clone()).unwrap_or_default()
    }

    async fn make_sandbox(&mut self, pod: &Pod, attempt: u32) -> Next {
        if self.volumes(pod, &Observed::default()).await.is_err() {
            return Next::Wait(RETRY_START);
        }
        match start::sandbox(&self.agent, pod, attempt).await {
            Ok(()) => Next::Again,
            Err(text) => {
                tracing::warn!(pod = pod.full_name(), error = text, "no sandbox");
                self.agent.recorder.pod(
                    pod,
                    None,
                    true,
                    "FailedCreatePodSandBox",
                    format!("Failed to create pod sandbox: {text}"),
                );
                Next::Wait(RETRY_START)
            }
        }
    }

    async fn end_containers(
        &mut self,
        pod: &Pod,
        seen: &Observed,
        step: &Plan,
        grace: i64,
    ) -> Next {
        let ip = self.ips(pod, seen).into_iter().next().unwrap_or_default();
        let ends = step
            .end
            .iter()
            .filter_map(|end| Some((end, seen.runs.iter().find(|run| run.id == end.id)?)));
        let all = ends.map(|(end, run)| {
            stop::container(&self.agent, pod, run, &end.message, end.grace.unwrap_or(grace), &ip)
        });
        let results = futures::future::join_all(all).await;
        if results.iter().any(Result::is_err) { Next::Wait(RETRY) } else { Next::Again }
    }

    async fn start(&mut self, desired: &Desired, pod: &Pod, seen: &Observed, step: &Plan) -> Next {
        let mut wait = None;
        let mut ready = Vec::new();
        for name in &step.start {
            match self.held_back(pod, seen, name) {
                Some(left) => wait = Some(wait.map_or(left, |wait: Duration| wait.min(left))),
                None => ready.push(name.clone()),
            }
        }
        if ready.is_empty() {
            self.report(desired, pod, seen);
            return Next::Wait(wait.unwrap_or(RETRY).min(self.idle(pod)));
        }
        let Ok(folders) = self.volumes(pod, seen).await else { return Next::Wait(RETRY_START) };
        let Some(sandbox) = seen.sandbox() else { return Next::Again };
        let ips = self.ips(pod, seen);
        let mut started = false;
        for name in ready {
            let Some(container) = pod.container(&name) else { continue };
            let start =
                Start { agent: &self.agent, pod, seen, sandbox, folders: &folders, ips: &ips };
            match start.container(&container, &mut self.pulls).await {
                Ok(()) => {
                    started = true;
                    self.waiting.remove(&name);
                }
                Err((reason, message)) => {
                    tracing::info!(
                        pod = pod.full_name(),
                        container = name,
                        reason,
                        message,
                        "container does not start"
                    );
                    self.waiting.insert(name, (reason.to_owned(), message));
                    let pause = if reason == "ImagePullBackOff" {
                        Duration::from_secs(10)
                    } else {
                        RETRY_START
                    };
                    wait = Some(wait.map_or(pause, |wait: Duration| wait.min(pause)));
                }
            }
        }
        self.report(desired, pod, seen);
        match wait {
            Some(wait) if !started => Next::Wait(wait),
            _ => Next::Again,
        }
    }

    /// How long a container that ended must still wait for its next run; notes the run otherwise.
    fn held_back(&mut self, pod: &Pod, seen: &Observed, name: &str) -> Option<Duration> {
        let run = seen
            .latest(name)
            .filter(|run| matches!(run.state, RunState::Exited | RunState::Created))?;
        let key = format!("{name}_{}", run.hash);
        let now = time::now();
        let failed = if run.finished_at > 0 { run.finished_at } else { run.created_at };
        let Some(until) = self.restarts.blocked_until(&key, failed, now) else {
            self.restarts.next(&key, now);
            return None;
        };
        let id = format!("{}_{}({})", pod.metadata.name, pod.metadata.namespace, pod.uid());
        let pause = flotilla_config::format_duration(Duration::from_nanos(
            u64::try_from(self.restarts.pause(&key)).unwrap_or(0),
        ));
        let text = format!("back-off {pause} restarting failed container={name} pod={id}");
        let known = self.waiting.insert(name.to_owned(), ("CrashLoopBackOff".to_owned(), text));
        if known.is_none_or(|(reason, _)| reason != "CrashLoopBackOff") {
            self.agent.recorder.pod(
                pod,
                Some(name),
                true,
                "BackOff",
                format!("Back-off restarting failed container {name} in pod {id}"),
            );
        }
        Some(
            Duration::from_nanos(u64::try_from(until - now).unwrap_or(0))
                + Duration::from_millis(10),
        )
    }

    fn probe(&mut self, pod: &Pod, seen: &Observed) {
        let running = seen.runs.iter().filter(|run| run.state == RunState::Running);
        let runs: Vec<(&Run, _)> =
            running.filter_map(|run| Some((run, pod.container(&run.name)?))).collect();
        let ip = self.ips(pod, seen).into_iter().next().unwrap_or_default();
        let (before, runtime) = (self.reported.clone(), self.agent.cri.runtime_name().0);
        let reported = move |run: &Run| {
            let id = format!("{runtime}://{}", run.id);
            before.container(&run.name).filter(|status| status.container_id == id).cloned()
        };
        self.prober.follow(&Arc::new(pod.clone()), &runs, &ip, reported);
        for (run, _) in runs {
            self.waiting.remove(&run.name);
        }
    }

    fn report(&mut self, desired: &Desired, pod: &Pod, seen: &Observed) {
        let prober = &self.prober;
        let fresh = status(&StatusInput {
            pod,
            seen,
            runtime: &self.agent.cri.runtime_name().0,
            waiting: &self.waiting,
            verdict: &|run| prober.verdict(run),
            host_ip: &self.agent.node_ip,
            ended: self.ended,
            failure: self.failure.as_ref(),
            now: time::now(),
        });
        self.status = fresh.clone();
        let known = Pod { status: fresh.clone(), ..pod.clone() };
        self.agent.pods.write().insert(pod.uid().to_owned(), Arc::new(known));
        if !desired.gone {
            self.writer.report(Report {
                pod: desired.pod.clone(),
                uid: desired.api_uid.clone(),
                status: fresh,
            });
        }
    }
}

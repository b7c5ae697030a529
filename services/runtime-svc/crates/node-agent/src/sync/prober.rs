//! Probing the running containers of one pod.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::agent::Agent;
use crate::engine::kube::{Container, ContainerStatus, Pod, Probe};
use crate::engine::observed::Run;
use crate::engine::plan::Verdict;
use crate::engine::probe::{ProbeKind, Settings, Tally};
use crate::engine::time;
use crate::remote::probe_call::{self, Target};

/// The probes of a pod's containers, by run.
#[derive(Debug)]
pub struct Prober {
    agent: Arc<Agent>,
    wake: Arc<Notify>,
    verdicts: Arc<Mutex<HashMap<String, Verdict>>>,
    tasks: HashMap<String, JoinHandle<()>>,
}

impl Prober {
    /// Wakes `wake` whenever a verdict changes.
    pub fn new(agent: Arc<Agent>, wake: Arc<Notify>) -> Self {
        Self { agent, wake, verdicts: Arc::default(), tasks: HashMap::new() }
    }

    /// What is known about a run. A run nobody probes yet has not started.
    pub fn verdict(&self, run: &Run) -> Verdict {
        self.verdicts.lock().get(&run.id).copied().unwrap_or_default()
    }

    /// Probes exactly these runs from now on. `reported` is what the API server knew of a run that was adopted:
    /// it counts until the first probe says otherwise.
    pub fn follow(
        &mut self,
        pod: &Arc<Pod>,
        runs: &[(&Run, Container)],
        ip: &str,
        reported: impl Fn(&Run) -> Option<ContainerStatus>,
    ) {
        let wanted: Vec<&str> = runs.iter().map(|(run, _)| run.id.as_str()).collect();
        self.tasks.retain(|id, task| {
            let keep = wanted.contains(&id.as_str());
            if !keep {
                task.abort();
            }
            keep
        });
        self.verdicts.lock().retain(|id, _| wanted.contains(&id.as_str()));
        for (run, container) in runs {
            if self.verdicts.lock().contains_key(&run.id) {
                continue;
            }
            let old = reported(run);
            let started = container.startup_probe.is_none()
                || old.as_ref().is_some_and(|old| old.started == Some(true));
            let ready =
                container.readiness_probe.is_none() || old.as_ref().is_some_and(|old| old.ready);
            self.verdicts
                .lock()
                .insert(run.id.clone(), Verdict { started, ready, ..Verdict::default() });
            if container.startup_probe.is_none()
                && container.readiness_probe.is_none()
                && container.liveness_probe.is_none()
            {
                continue;
            }
            let target = Target {
                container: Arc::new(container.clone()),
                id: run.id.clone(),
                ip: ip.to_owned(),
            };
            let probing = Probing {
                agent: self.agent.clone(),
                pod: pod.clone(),
                target,
                started_at: run.started_at,
                verdicts: self.verdicts.clone(),
                wake: self.wake.clone(),
            };
            self.tasks.insert(run.id.clone(), tokio::spawn(probing.run(started)));
        }
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        for task in self.tasks.values() {
            task.abort();
        }
    }
}

struct Probing {
    agent: Arc<Agent>,
    pod: Arc<Pod>,
    target: Target,
    started_at: i64,
    verdicts: Arc<Mutex<HashMap<String, Verdict>>>,
    wake: Arc<Notify>,
}

impl Probing {
    async fn run(self, started: bool) {
        let container = self.target.container.clone();
        if let Some(probe) = container.startup_probe.as_ref().filter(|_| !started)
            && !self.until_started(probe).await
        {
            return;
        }
        let liveness = async {
            if let Some(probe) = &container.liveness_probe {
                self.watch(ProbeKind::Liveness, probe, true, |verdict, passing| {
                    verdict.dead = !passing
                })
                .await;
            }
        };
        let readiness = async {
            if let Some(probe) = &container.readiness_probe {
                self.watch(ProbeKind::Readiness, probe, false, |verdict, passing| {
                    verdict.ready = passing
                })
                .await;
            }
        };
        tokio::join!(liveness, readiness);
    }

    async fn until_started(&self, probe: &Probe) -> bool {
        let settings = Settings::of(probe);
        let mut tally = Tally::new(settings, false);
        self.delay(settings).await;
        loop {
            if let Some(passing) = tally.count(self.once(ProbeKind::Startup, probe, settings).await)
            {
                self.update(|verdict| {
                    (verdict.started, verdict.failed_to_start) = (passing, !passing)
                });
                return passing;
            }
            tokio::time::sleep(Duration::from_secs(settings.period)).await;
        }
    }

    async fn watch(
        &self,
        kind: ProbeKind,
        probe: &Probe,
        passing: bool,
        set: impl Fn(&mut Verdict, bool),
    ) {
        let settings = Settings::of(probe);
        let mut tally = Tally::new(settings, passing);
        self.delay(settings).await;
        let mut ticks = tokio::time::interval(Duration::from_secs(settings.period));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let Some(passing) = tally.count(self.once(kind, probe, settings).await) else {
                continue;
            };
            self.update(|verdict| set(verdict, passing));
            if kind == ProbeKind::Liveness && !passing {
                // The run is as good as ended; its successor gets probes of its own.
                return;
            }
        }
    }

    async fn delay(&self, settings: Settings) {
        let due = self.started_at.saturating_add(
            i64::try_from(settings.delay).unwrap_or(0).saturating_mul(1_000_000_000),
        );
        let left = u64::try_from(due - time::now()).unwrap_or(0);
        tokio::time::sleep(Duration::from_nanos(left)).await;
    }

    async fn once(&self, kind: ProbeKind, probe: &Probe, settings: Settings) -> bool {
        let timeout = Duration::from_secs(settings.timeout);
        let result = probe_call::call(&self.agent.cri, &self.target, &probe.handler, timeout).await;
        self.agent.metrics.probe(kind, result.is_ok());
        let Err(reason) = result else { return true };
        let text = format!("{} probe failed: {reason}", kind.title());
        self.agent.recorder.pod(
            &self.pod,
            Some(&self.target.container.name),
            true,
            "Unhealthy",
            text,
        );
        false
    }

    fn update(&self, change: impl Fn(&mut Verdict)) {
        let mut verdicts = self.verdicts.lock();
        let Some(verdict) = verdicts.get_mut(&self.target.id) else { return };
        let before = *verdict;
        change(verdict);
        if *verdict != before {
            self.wake.notify_one();
        }
    }
}

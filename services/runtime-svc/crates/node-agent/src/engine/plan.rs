//! What to do next for one pod: which sandbox and containers to end, which to start.
//!
//! A plan is one step towards the wanted state. It is made anew after each step from what the runtime says, so
//! it needs no memory of its own. Pauses between restarts are the caller's business.

use super::kube::{Container, Pod, RestartPolicy};
use super::names;
use super::observed::{Observed, Run, RunState};

/// One step.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// End everything that runs, and the sandbox.
    pub end_pod: bool,
    /// Make a sandbox with this attempt number, after ending the pod.
    pub new_sandbox: Option<u32>,
    /// Containers to end.
    pub end: Vec<End>,
    /// Containers to start, in order.
    pub start: Vec<String>,
    /// Runs that never began and stand in the way of a new one.
    pub discard: Vec<String>,
}

/// A container to end and why.
#[derive(Debug, Clone, PartialEq)]
pub struct End {
    /// Id of the run.
    pub id: String,
    /// Name of the container.
    pub name: String,
    /// For the event.
    pub message: String,
    /// Grace period that the reason brings with it.
    pub grace: Option<i64>,
}

/// What probes say about a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The startup probe passed, or there is none.
    pub started: bool,
    /// The readiness probe passes, or there is none.
    pub ready: bool,
    /// The liveness probe failed for good.
    pub dead: bool,
    /// The startup probe failed for good.
    pub failed_to_start: bool,
}

/// Makes the next step. `verdict` answers for runs that are running.
pub fn plan(pod: &Pod, seen: &Observed, verdict: &dyn Fn(&Run) -> Verdict) -> Plan {
    let sandbox = seen.sandbox();
    let ready = seen.sandboxes.iter().filter(|sandbox| sandbox.ready).count();
    let usable = sandbox.is_some_and(|s| s.ready && (pod.spec.host_network || !s.ips.is_empty()));
    match sandbox {
        Some(sandbox) if usable && ready == 1 => {
            Planner { pod, seen, sandbox: &sandbox.id, verdict, plan: Plan::default() }.run()
        }
        _ => without_sandbox(pod, seen),
    }
}

/// How often the next run of a container will have been restarted.
pub fn next_attempt(pod: &Pod, seen: &Observed, name: &str) -> u32 {
    if let Some(run) = seen.latest(name) {
        return run.attempt + 1;
    }
    let known = pod.status.container(name);
    let count =
        known.map_or(0, |status| status.restart_count + i32::from(!status.container_id.is_empty()));
    u32::try_from(count).unwrap_or(0)
}

/// Whether a container that ended is started again.
pub fn restarts(pod: &Pod, container: &Container, run: &Run) -> bool {
    if container.is_sidecar() {
        return true;
    }
    match pod.spec.restart_policy {
        RestartPolicy::Always => true,
        RestartPolicy::OnFailure => run.exit_code != 0,
        RestartPolicy::Never => false,
    }
}

fn without_sandbox(pod: &Pod, seen: &Observed) -> Plan {
    let attempt = seen.sandboxes.iter().map(|sandbox| sandbox.attempt + 1).max().unwrap_or(0);
    let never = pod.spec.restart_policy == RestartPolicy::Never;
    if never && attempt > 0 && !seen.runs.is_empty() {
        return Plan { end_pod: seen.is_alive(), ..Plan::default() };
    }
    let done = |container: &&Container| {
        let run = seen.latest(&container.name);
        run.is_some_and(|run| run.state == RunState::Exited && !restarts(pod, container, run))
    };
    if !pod.spec.containers.is_empty() && pod.spec.containers.iter().all(|c| done(&c)) {
        return Plan { end_pod: seen.is_alive(), ..Plan::default() };
    }
    Plan { end_pod: !seen.sandboxes.is_empty(), new_sandbox: Some(attempt), ..Plan::default() }
}

struct Planner<'a> {
    pod: &'a Pod,
    seen: &'a Observed,
    sandbox: &'a str,
    verdict: &'a dyn Fn(&Run) -> Verdict,
    plan: Plan,
}

enum Init {
    Done,
    Wait,
    Failed,
}

impl<'a> Planner<'a> {
    fn run(mut self) -> Plan {
        for ephemeral in &self.pod.spec.ephemeral_containers {
            if self.seen.latest(&ephemeral.container.name).is_none() {
                self.plan.start.push(ephemeral.container.name.clone());
            }
        }
        match self.init() {
            Init::Wait => return self.plan,
            Init::Failed => return Plan { end_pod: self.seen.is_alive(), ..Plan::default() },
            Init::Done => {}
        }
        let mut busy = false;
        for container in &self.pod.spec.containers {
            busy |= self.regular(container);
        }
        if !busy && !self.pod.spec.containers.is_empty() {
            return Plan { end_pod: true, ..Plan::default() };
        }
        self.plan
    }

    fn init(&mut self) -> Init {
        let begun = self.pod.spec.containers.iter().any(|c| self.current(c).is_some());
        for container in &self.pod.spec.init_containers {
            if container.is_sidecar() {
                if !self.sidecar(container) && !begun {
                    return Init::Wait;
                }
                continue;
            }
            if begun {
                continue;
            }
            match self.current(container) {
                Some(run) if run.state == RunState::Exited && run.exit_code == 0 => {}
                Some(run) if run.state == RunState::Running => return Init::Wait,
                Some(run)
                    if run.state == RunState::Exited
                        && self.pod.spec.restart_policy == RestartPolicy::Never =>
                {
                    return Init::Failed;
                }
                run => {
                    self.discard(run);
                    self.plan.start.push(container.name.clone());
                    return Init::Wait;
                }
            }
        }
        Init::Done
    }

    /// Whether the sidecar has started, so that what follows it may.
    fn sidecar(&mut self, container: &Container) -> bool {
        match self.current(container) {
            Some(run) if run.state == RunState::Running => {
                if self.end_if_wrong(container, run) {
                    self.plan.start.push(container.name.clone());
                    return false;
                }
                (self.verdict)(run).started
            }
            run => {
                self.discard(run);
                self.plan.start.push(container.name.clone());
                false
            }
        }
    }

    /// Whether the container keeps the pod going.
    fn regular(&mut self, container: &Container) -> bool {
        let finished_before = || {
            let run = self.seen.latest(&container.name)?;
            (run.state == RunState::Exited && !restarts(self.pod, container, run)).then_some(())
        };
        match self.current(container) {
            Some(run) if run.state == RunState::Running => {
                let restart = !names::hash_fits(container, &run.hash)
                    || self.pod.spec.restart_policy != RestartPolicy::Never;
                if self.end_if_wrong(container, run) && restart {
                    self.plan.start.push(container.name.clone());
                }
                true
            }
            Some(run) if run.state == RunState::Exited => {
                let again = restarts(self.pod, container, run);
                if again {
                    self.plan.start.push(container.name.clone());
                }
                again
            }
            None if finished_before().is_some() => false,
            run => {
                self.discard(run);
                self.plan.start.push(container.name.clone());
                true
            }
        }
    }

    fn end_if_wrong(&mut self, container: &Container, run: &Run) -> bool {
        let verdict = (self.verdict)(run);
        let name = &container.name;
        let own_grace = |probe: &Option<super::kube::Probe>| {
            probe.as_ref().and_then(|p| p.termination_grace_period_seconds)
        };
        let (message, grace) = if !names::hash_fits(container, &run.hash) {
            (format!("Container {name} definition changed"), None)
        } else if verdict.dead {
            (
                format!("Container {name} failed liveness probe"),
                own_grace(&container.liveness_probe),
            )
        } else if verdict.failed_to_start {
            (format!("Container {name} failed startup probe"), own_grace(&container.startup_probe))
        } else {
            return false;
        };
        let message = format!("{message}, will be restarted");
        self.plan.end.push(End { id: run.id.clone(), name: name.clone(), message, grace });
        true
    }

    fn current(&self, container: &Container) -> Option<&'a Run> {
        let seen: &'a Observed = self.seen;
        seen.latest_in(&container.name, self.sandbox)
    }

    fn discard(&mut self, run: Option<&Run>) {
        if let Some(run) =
            run.filter(|run| matches!(run.state, RunState::Created | RunState::Unknown))
        {
            self.plan.discard.push(run.id.clone());
        }
    }
}

#[cfg(test)]
mod tests;

//! Feeds the scheduling core from the API and binds pods.
//!
//! One task owns the core: it takes changes of nodes, pods and namespaces in turn, decides, and hands each
//! decision to a task of its own that talks to the API. Many bindings are under way at a time; none blocks a
//! decision. Whatever is lost by a crash is read again from the API, which binds a pod once at most.

mod config;
mod deeds;
mod error;
mod feed;
mod metrics;
mod questions;
mod scheduler;

use std::time::Duration;

use flotilla_kube_client::{Client, LeaderElection};
use flotilla_server::Shutdown;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

pub use config::{Config, Election, Settings};
pub use error::Error;
pub use metrics::register_metrics;
pub use questions::{Handle, Questions};

use deeds::Deeds;
use metrics::METRICS;
use questions::{Asked, Question};
use sched_core::Attempt;
use scheduler::{Order, Scheduler};

/// Bindings in flight.
const BINDINGS: usize = 256;
/// Decisions between looks at what happened.
const BATCH: usize = 32;
/// Changes taken between decisions.
const NEWS: usize = 512;
/// Longest time without a look at the queue.
const TICK: Duration = Duration::from_secs(1);

/// Runs the scheduler until `shutdown` fires.
///
/// # Errors
/// When the configuration is wrong or the leader lease is lost.
pub async fn run(client: Client, config: Config, shutdown: Shutdown) -> Result<(), Error> {
    run_with(client, config, Handle::default(), shutdown).await
}

/// As [`run`]; `handle` reaches the scheduler while it runs.
///
/// # Errors
/// As [`run`].
pub async fn run_with(
    client: Client,
    config: Config,
    handle: Handle,
    shutdown: Shutdown,
) -> Result<(), Error> {
    let settings = config.settings()?;
    if !settings.election.on {
        schedule(&client, settings, &handle, shutdown.triggered()).await;
        return Ok(());
    }
    let election = settings.election.clone();
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let identity = format!("{}_{}", host.trim(), std::process::id());
    let mut lease =
        LeaderElection::new(client.clone(), &election.namespace, &election.name, &identity)
            .with_times(election.lease, election.renew, election.retry);
    tokio::select! {
        () = lease.acquire() => tracing::info!(lease = election.name, identity, "leading"),
        () = shutdown.triggered() => return Ok(()),
    }
    tokio::select! {
        () = schedule(&client, settings, &handle, shutdown.triggered()) => {
            lease.release().await;
            Ok(())
        }
        () = lease.hold() => Err(Error::LeaseLost),
    }
}

struct Outcome {
    attempt: Attempt,
    began: Instant,
    result: Result<(), flotilla_kube_client::Error>,
}

/// Ends the questions with the loop that answers them.
struct Closing<'a>(&'a Handle);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

async fn schedule(
    client: &Client,
    settings: Settings,
    handle: &Handle,
    end: impl Future<Output = ()>,
) {
    let mut tasks = JoinSet::new();
    let mut news = feed::follow(client, &mut tasks);
    let mut questions = handle.open();
    let _closing = Closing(handle);
    let deeds = Deeds::new(client.clone(), &settings.scheduler_name);
    let profile = settings.scheduler_name.clone();
    let mut state = Scheduler::new(settings, u64::from(std::process::id()));
    let (done, mut outcomes) = mpsc::channel::<Outcome>(BINDINGS);
    let mut in_flight = 0;
    let clock = Instant::now();
    let now = || u64::try_from(clock.elapsed().as_millis()).unwrap_or(u64::MAX);
    tokio::pin!(end);
    loop {
        let due = state
            .queue
            .next_due()
            .map_or(TICK, |at| Duration::from_millis(at.saturating_sub(now())));
        let idle = in_flight >= BINDINGS || !state.complete() || !state.queue.has_ready();
        let pause = if idle { due.min(TICK) } else { Duration::ZERO };
        tokio::select! {
            biased;
            () = &mut end => break,
            Some(outcome) = outcomes.recv() => {
                in_flight -= 1;
                settle(&mut state, &profile, &outcome, clock, now());
            }
            Some(change) = news.recv() => {
                let more = std::iter::from_fn(|| news.try_recv().ok()).take(NEWS);
                for change in std::iter::once(change).chain(more) {
                    for order in state.take(change, now()) {
                        carry_out(&deeds, order);
                    }
                }
            }
            Some(question) = questions.recv() => answer(&mut state, question),
            () = tokio::time::sleep(pause) => {}
        }
        state.expire(now());
        for _ in 0..BATCH {
            if in_flight >= BINDINGS || !state.complete() {
                break;
            }
            let began = Instant::now();
            let Some(orders) = state.decide(now()) else { break };
            for order in orders {
                match order {
                    Order::Bind(attempt, node) => {
                        in_flight += 1;
                        bind(&deeds, &done, attempt, node, began);
                    }
                    Order::Report(_, _, _) => {
                        METRICS.attempt(&profile, "unschedulable", began.elapsed().as_secs_f64());
                        carry_out(&deeds, order);
                    }
                    Order::Preempt(..) => carry_out(&deeds, order),
                }
            }
        }
        METRICS.pending(state.queue.counts());
        tokio::task::yield_now().await;
    }
    // What was decided is carried out before the end: a binding that is sent counts.
    let drain = async {
        while in_flight > 0 && outcomes.recv().await.is_some() {
            in_flight -= 1;
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(5), drain).await;
    tasks.shutdown().await;
}

fn bind(
    deeds: &Deeds,
    done: &mpsc::Sender<Outcome>,
    attempt: Attempt,
    node: String,
    began: Instant,
) {
    let (deeds, done) = (deeds.clone(), done.clone());
    tokio::spawn(async move {
        let result = deeds.bind(&attempt.pod, &node).await;
        let _ = done.send(Outcome { attempt, began, result }).await;
    });
}

fn settle(state: &mut Scheduler, profile: &str, outcome: &Outcome, clock: Instant, now: u64) {
    let seconds = outcome.began.elapsed().as_secs_f64();
    if state.bound(&outcome.attempt.pod, &outcome.result, now) {
        METRICS.attempt(profile, "scheduled", seconds);
        let waited = clock.elapsed().as_millis().saturating_sub(u128::from(outcome.attempt.added));
        METRICS.scheduled(outcome.attempt.attempts, waited as f64 / 1000.0);
    } else {
        METRICS.attempt(profile, "error", seconds);
    }
}

fn carry_out(deeds: &Deeds, order: Order) {
    match order {
        Order::Report(pod, reason, message) => deeds.report(pod, reason, message),
        Order::Preempt(pod, node, victims) => {
            for victim in victims {
                deeds.evict(victim, &pod, &node);
            }
            deeds.nominate(pod, &node);
        }
        Order::Bind(..) => unreachable!("bindings are counted where they are made"),
    }
}

fn answer(state: &mut Scheduler, question: Question) {
    let pod = match &question.pod {
        Asked::Pod(pod) => Ok((**pod).clone()),
        Asked::Name(name) => {
            state.find(name).cloned().ok_or_else(|| format!("no unfinished pod {name:?} is known"))
        }
    };
    let info = pod.and_then(|pod| state.engine.read(&pod));
    let reply = info.map(|info| (Box::new(state.engine.clone()), std::sync::Arc::new(info)));
    // Whoever asked may be gone.
    let _ = question.answer.send(reply);
}

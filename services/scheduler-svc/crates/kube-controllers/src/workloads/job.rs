//! Jobs: pods that run until enough of them have succeeded.
//!
//! A finished pod is held by a finalizer until it is counted: first its uid is noted in the status, then the
//! finalizer goes, then the uid becomes one in the count. A crash anywhere in between loses none and counts
//! none twice.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use flotilla_kube_client::now_rfc3339;
use futures::future::join_all;
use jiff::Timestamp;
use sched_core::labels::Selector;
use serde_json::{Value, json};

use crate::cache::kind::{JOB, POD};
use crate::cache::{Event, Key, Kind, Object, parse_time};
use crate::cluster::{Cluster, Propagation};
use crate::replicaset::{comparable, owners};
use crate::runner::{Again, Controller};
use crate::{Error, claim, conditions, pods};

use super::indexes;

const TRACKING: &str = "batch.kubernetes.io/job-tracking";
const UID_LABEL: &str = "batch.kubernetes.io/controller-uid";
const NAME_LABEL: &str = "batch.kubernetes.io/job-name";
const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// Pause before a failed pod is replaced; doubles with each failure.
const FIRST_PAUSE: i64 = 10;
const LONGEST_PAUSE: i64 = 360;
/// Pods made in one sync.
const BURST: usize = 500;

/// The controller.
#[derive(Debug)]
pub struct Jobs(pub Cluster);

/// One job in one sync.
struct Work<'a> {
    cluster: &'a Cluster,
    job: Object,
    pods: Vec<Arc<Object>>,
    again: Again,
}

impl Controller for Jobs {
    const NAME: &'static str = "job-controller";

    fn kinds(&self) -> Vec<Kind> {
        vec![JOB, POD]
    }

    fn keys(&self, event: &Event) -> Vec<Key> {
        if event.kind == JOB { vec![event.object().key()] } else { owners(&self.0, event, JOB) }
    }

    async fn sync(&self, key: &Key) -> Result<Again, Error> {
        let Some(job) = self.0.cached(JOB, key) else { return self.free(key).await };
        if ["podFailurePolicy", "successPolicy", "backoffLimitPerIndex", "managedBy"]
            .iter()
            .any(|field| job.at(&format!("/spec/{field}")).is_some_and(|v| !v.is_null()))
        {
            return Err(Error::Object(
                "not supported yet: podFailurePolicy, successPolicy, backoffLimitPerIndex, managedBy"
                    .to_owned(),
            ));
        }
        let selector = match job.at("/spec/selector") {
            Some(_) => claim::selector(&job)?,
            None => Selector::parse(&json!({"matchLabels": {UID_LABEL: job.metadata.uid}}))
                .map_err(Error::Object)?,
        };
        let candidates = self.0.store(POD).namespace(&key.namespace);
        let pods = claim::claim(&self.0, (JOB, &job), &selector, POD, candidates).await?;
        let mut work = Work { cluster: &self.0, job: (*job).clone(), pods, again: None };
        work.run().await?;
        Ok(work.again)
    }
}

impl Jobs {
    /// The job is gone: nobody counts its pods any more, so nothing may hold them.
    async fn free(&self, key: &Key) -> Result<Again, Error> {
        for pod in self.0.store(POD).namespace(&key.namespace) {
            let own = pod.controller().is_some_and(|o| o.kind == JOB.kind && o.name == key.name);
            if own && tracked(&pod) {
                untrack(&self.0, &pod).await?;
            }
        }
        Ok(None)
    }
}

fn tracked(pod: &Object) -> bool {
    pod.metadata.finalizers.iter().any(|f| f == TRACKING)
}

async fn untrack(cluster: &Cluster, pod: &Object) -> Result<(), Error> {
    let left: Vec<&String> = pod.metadata.finalizers.iter().filter(|f| *f != TRACKING).collect();
    let patch = json!({"metadata": {"uid": pod.metadata.uid,
        "resourceVersion": pod.metadata.resource_version, "finalizers": left}});
    match cluster.patch(POD, &pod.key(), &patch).await {
        Err(error) if !error.is_not_found() => Err(error.into()),
        _ => Ok(()),
    }
}

fn finished(job: &Object) -> bool {
    ["Complete", "Failed"].iter().any(|c| job.condition(c).is_some_and(|c| c["status"] == "True"))
}

fn index(pod: &Object) -> Option<i64> {
    pod.metadata.annotations.get(INDEX)?.parse().ok()
}

impl Work<'_> {
    fn number(&self, field: &str, default: i64) -> i64 {
        self.job.int(&format!("/spec/{field}")).unwrap_or(default)
    }

    fn indexed(&self) -> bool {
        self.job.text("/spec/completionMode") == "Indexed"
    }

    async fn run(&mut self) -> Result<(), Error> {
        if finished(&self.job) {
            self.release_all().await?;
            return self.expire().await;
        }
        if self.job.deleting() {
            return self.release_all().await;
        }
        self.count().await?;
        for pod in self.pods.clone() {
            let noted = ["succeeded", "failed"]
                .iter()
                .any(|list| self.noted(list).contains(&pod.metadata.uid));
            if noted && tracked(&pod) {
                untrack(self.cluster, &pod).await?;
            }
        }
        let verdict = self.verdict();
        match verdict {
            Some((kind, reason, message)) => self.finish(kind, reason, &message).await,
            None => {
                let result = self.scale().await;
                self.report(&[]).await?;
                result
            }
        }
    }

    async fn release_all(&self) -> Result<(), Error> {
        for pod in self.pods.iter().filter(|pod| tracked(pod)) {
            untrack(self.cluster, pod).await?;
        }
        Ok(())
    }

    /// Removes a finished job when its time to live is over.
    async fn expire(&mut self) -> Result<(), Error> {
        let Some(seconds) = self.job.int("/spec/ttlSecondsAfterFinished") else { return Ok(()) };
        let at = ["Complete", "Failed"].iter().find_map(|kind| {
            let condition = self.job.condition(kind).filter(|c| c["status"] == "True")?;
            parse_time(condition["lastTransitionTime"].as_str()?)
        });
        let Some(at) = at else { return Ok(()) };
        let left = at.as_second() + seconds - Timestamp::now().as_second();
        if left > 0 {
            self.again = Some(Duration::from_secs(left.unsigned_abs()));
            return Ok(());
        }
        self.cluster.delete(JOB, &self.job, Propagation::Foreground, None).await?;
        Ok(())
    }

    fn noted(&self, list: &str) -> BTreeSet<String> {
        let all = self.job.list(&format!("/status/uncountedTerminatedPods/{list}")).iter();
        all.filter_map(Value::as_str).map(str::to_owned).collect()
    }

    /// Takes noted pods that nothing holds any more into the counts, and notes newly finished ones.
    async fn count(&mut self) -> Result<(), Error> {
        let held: BTreeSet<&String> =
            self.pods.iter().filter(|p| tracked(p)).map(|p| &p.metadata.uid).collect();
        let mut status = self.job.body.get("status").cloned().unwrap_or_else(|| json!({}));
        let before = status.clone();
        let completions = self.job.int("/spec/completions");
        let mut done = indexes::parse(status["completedIndexes"].as_str().unwrap_or_default());
        for list in ["succeeded", "failed"] {
            let (still, counted): (Vec<String>, Vec<String>) =
                self.noted(list).into_iter().partition(|uid| held.contains(uid));
            let mut noted = still;
            if !self.indexed() || list == "failed" {
                status[list] = json!(status[list].as_i64().unwrap_or(0) + counted.len() as i64);
            }
            for pod in self.pods.iter().filter(|p| tracked(p)) {
                let success = pod.text("/status/phase") == "Succeeded";
                let failure = pod.text("/status/phase") == "Failed" || (pod.deleting() && !success);
                let wanted = if list == "succeeded" { success } else { failure };
                if wanted && !noted.contains(&pod.metadata.uid) {
                    noted.push(pod.metadata.uid.clone());
                    if success && self.indexed() {
                        let valid = |i: &i64| (0..completions.unwrap_or(0)).contains(i);
                        done.extend(index(pod).filter(valid));
                    }
                }
            }
            status["uncountedTerminatedPods"][list] = json!(noted);
        }
        if self.indexed() {
            status["completedIndexes"] = json!(indexes::write(&done));
            status["succeeded"] = json!(done.len());
        }
        if status["startTime"].is_null() && !self.job.flag("/spec/suspend") {
            status["startTime"] = json!(now_rfc3339());
        }
        if comparable(Some(&before)) != comparable(Some(&status)) {
            self.job.body.insert("status".to_owned(), status);
            self.job = self.cluster.replace_status(JOB, &self.job).await?;
        }
        Ok(())
    }

    fn succeeded(&self) -> i64 {
        let noted = if self.indexed() { 0 } else { self.noted("succeeded").len() as i64 };
        self.job.int("/status/succeeded").unwrap_or(0) + noted
    }

    fn failed(&self) -> i64 {
        self.job.int("/status/failed").unwrap_or(0) + self.noted("failed").len() as i64
    }

    fn active(&self) -> Vec<Arc<Object>> {
        self.pods.iter().filter(|p| pods::active(p)).cloned().collect()
    }

    /// Whether the job is to end: condition, reason, message.
    fn verdict(&mut self) -> Option<(&'static str, &'static str, String)> {
        if let Some(target) = self.job.condition("FailureTarget").cloned() {
            let message = target["message"].as_str().unwrap_or_default().to_owned();
            let late = target["reason"] == "DeadlineExceeded";
            let reason = if late { "DeadlineExceeded" } else { "BackoffLimitExceeded" };
            return Some(("Failed", reason, message));
        }
        if self.job.condition("SuccessCriteriaMet").is_some() {
            let message = "Reached expected number of succeeded pods".to_owned();
            return Some(("Complete", "CompletionsReached", message));
        }
        let restarts: i64 = self
            .active()
            .iter()
            .filter(|p| p.text("/spec/restartPolicy") == "OnFailure")
            .map(|p| pods::restarts(p))
            .sum();
        if self.failed() + restarts > self.number("backoffLimit", 6) {
            let message = "Job has reached the specified backoff limit".to_owned();
            return Some(("Failed", "BackoffLimitExceeded", message));
        }
        let start = parse_time(self.job.text("/status/startTime"));
        let limit = self.job.int("/spec/activeDeadlineSeconds");
        if let (Some(start), Some(limit), false) = (start, limit, self.job.flag("/spec/suspend")) {
            let left = start.as_second() + limit - Timestamp::now().as_second();
            if left <= 0 {
                let message = "Job was active longer than specified deadline".to_owned();
                return Some(("Failed", "DeadlineExceeded", message));
            }
            self.again = Some(Duration::from_secs(left.unsigned_abs()));
        }
        let complete = match self.job.int("/spec/completions") {
            Some(wanted) => self.succeeded() >= wanted,
            None => self.succeeded() > 0 && self.active().is_empty(),
        };
        let message = "Reached expected number of succeeded pods".to_owned();
        complete.then_some(("Complete", "CompletionsReached", message))
    }

    /// Ends all pods; when none is left to be counted, says that the job has ended.
    async fn finish(&mut self, kind: &str, reason: &str, message: &str) -> Result<(), Error> {
        for pod in self.active() {
            self.cluster.delete(POD, &pod, Propagation::Background, None).await?;
        }
        let interim = if kind == "Complete" { "SuccessCriteriaMet" } else { "FailureTarget" };
        let counted = self.noted("succeeded").is_empty() && self.noted("failed").is_empty();
        let running = self.pods.iter().any(|p| !pods::finished(p));
        if !counted || running {
            return self.report(&[(interim, reason, message)]).await;
        }
        self.report(&[(interim, reason, message), (kind, reason, message)]).await?;
        let about = self.job.regarding(JOB);
        if kind == "Complete" {
            self.cluster.events.normal(about, "Completed", "Job completed");
        } else {
            self.cluster.events.warning(about, reason, message);
        }
        Ok(())
    }

    async fn scale(&mut self) -> Result<(), Error> {
        let mut active = self.active();
        let suspended = self.job.flag("/spec/suspend");
        let parallelism = if suspended { 0 } else { self.number("parallelism", 1) };
        let wanted = match self.job.int("/spec/completions") {
            Some(completions) => parallelism.min((completions - self.succeeded()).max(0)),
            // Without a number of completions the first success ends the search for new pods.
            None if self.succeeded() > 0 => parallelism.min(active.len() as i64),
            None => parallelism,
        };
        let wanted = usize::try_from(wanted).unwrap_or(0);
        if active.len() > wanted {
            active.sort_by_key(|p| (pods::ready(p), std::cmp::Reverse(p.created())));
            for pod in &active[..active.len() - wanted] {
                self.cluster.delete(POD, pod, Propagation::Background, None).await?;
                let message = format!("Deleted pod: {}", pod.metadata.name);
                let about = self.job.regarding(JOB);
                self.cluster.events.normal(about, "SuccessfulDelete", message);
            }
            return Ok(());
        }
        let missing = (wanted - active.len()).min(BURST);
        if missing == 0 {
            return Ok(());
        }
        if let Some(pause) = self.pause() {
            self.again = Some(self.again.map_or(pause, |a| a.min(pause)));
            return Ok(());
        }
        let free: Vec<Option<i64>> = if self.indexed() {
            let mut taken = indexes::parse(self.job.text("/status/completedIndexes"));
            taken.extend(active.iter().filter_map(|p| index(p)));
            let all = 0..self.number("completions", 0);
            all.filter(|i| !taken.contains(i)).take(missing).map(Some).collect()
        } else {
            vec![None; missing]
        };
        for result in join_all(free.into_iter().map(|index| self.create(index))).await {
            result?;
        }
        Ok(())
    }

    /// How long a replacement of a failed pod has to wait.
    fn pause(&self) -> Option<Duration> {
        let failed = self.failed();
        let ended = |pod: &Arc<Object>| {
            let times = pod.list("/status/containerStatuses").iter();
            let times = times.filter_map(|s| s["state"]["terminated"]["finishedAt"].as_str());
            let ready = pod.condition("Ready").and_then(|c| c["lastTransitionTime"].as_str());
            times.chain(ready).filter_map(parse_time).max()
        };
        let failures = self.pods.iter().filter(|p| p.text("/status/phase") == "Failed");
        let last = failures.filter_map(ended).max()?;
        let doubled = FIRST_PAUSE.checked_shl(u32::try_from(failed - 1).unwrap_or(0).min(10));
        let pause = doubled.unwrap_or(LONGEST_PAUSE).min(LONGEST_PAUSE);
        let left = last.as_second() + pause - Timestamp::now().as_second();
        (left > 0).then(|| Duration::from_secs(left.unsigned_abs()))
    }

    async fn create(&self, index: Option<i64>) -> Result<(), Error> {
        let meta = &self.job.metadata;
        let template = self.job.at("/spec/template").cloned().unwrap_or_default();
        let owner = self.job.owner_reference(JOB);
        let mut pod = pods::from_template(&template, &meta.namespace, &meta.name, owner);
        pod.metadata.finalizers.push(TRACKING.to_owned());
        let labels = [
            (UID_LABEL, &meta.uid),
            ("controller-uid", &meta.uid),
            (NAME_LABEL, &meta.name),
            ("job-name", &meta.name),
        ];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.clone()));
        pod.metadata.labels.extend(labels);
        if let Some(index) = index {
            let text = index.to_string();
            pod.metadata.annotations.insert(INDEX.to_owned(), text.clone());
            pod.metadata.labels.insert(INDEX.to_owned(), text);
            let prefix = json!(format!("{}-{index}-", meta.name));
            pod.metadata.rest.insert("generateName".to_owned(), prefix);
            let spec = pod.body.entry("spec").or_insert_with(|| json!({}));
            if spec["hostname"].is_null() {
                spec["hostname"] = json!(format!("{}-{index}", meta.name));
            }
            indexes::expose(spec, INDEX);
        }
        match self.cluster.create(POD, &pod).await {
            Ok(made) => {
                let message = format!("Created pod: {}", made.metadata.name);
                let about = self.job.regarding(JOB);
                self.cluster.events.normal(about, "SuccessfulCreate", message);
                Ok(())
            }
            Err(error) => {
                let message = format!("Error creating: {error}");
                self.cluster.events.warning(self.job.regarding(JOB), "FailedCreate", message);
                Err(error.into())
            }
        }
    }

    async fn report(&mut self, add: &[(&str, &str, &str)]) -> Result<(), Error> {
        let own = self.cluster.store(POD).owned_by(&self.job.metadata.uid);
        let active: Vec<&Arc<Object>> = own.iter().filter(|p| pods::active(p)).collect();
        let ready = active.iter().filter(|p| pods::ready(p)).count();
        let leaving = own.iter().filter(|p| p.deleting() && !pods::finished(p)).count();
        let mut status = self.job.body.get("status").cloned().unwrap_or_else(|| json!({}));
        status["active"] = json!(active.len());
        status["ready"] = json!(ready);
        status["terminating"] = json!(leaving);
        let mut list = self.job.list("/status/conditions").to_vec();
        let suspended = self.job.flag("/spec/suspend");
        if suspended {
            conditions::set(&mut list, "Suspended", "True", "JobSuspended", "Job suspended");
            status["startTime"] = Value::Null;
        } else if conditions::find(&list, "Suspended").is_some_and(|c| c["status"] == "True") {
            conditions::set(&mut list, "Suspended", "False", "JobResumed", "Job resumed");
        }
        for (kind, reason, message) in add {
            conditions::set(&mut list, kind, "True", reason, message);
            if *kind == "Complete" {
                status["completionTime"] = json!(now_rfc3339());
            }
        }
        if !list.is_empty() {
            // Conditions of jobs have a probe time instead of an update time.
            for condition in &mut list {
                if let Some(fields) = condition.as_object_mut()
                    && let Some(time) = fields.remove("lastUpdateTime")
                {
                    fields.insert("lastProbeTime".to_owned(), time);
                }
            }
            status["conditions"] = json!(list);
        }
        if comparable(self.job.body.get("status")) != comparable(Some(&status)) {
            self.job.body.insert("status".to_owned(), status);
            self.job = self.cluster.replace_status(JOB, &self.job).await?;
        }
        Ok(())
    }
}

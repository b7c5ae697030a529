//! Flags and the configuration file (`kubescheduler.config.k8s.io/v1`).

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use flotilla_config::parse_duration;
use sched_core::Weights;
use serde_json::Value;

use crate::Error;

/// Flags, under kube-scheduler's names.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Scheduler")]
#[group(skip)]
pub struct Config {
    /// KubeSchedulerConfiguration file.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Run only while holding a lease. The binary sets it from its one `--leader-elect`; the file's
    /// `leaderElection.leaderElect` wins.
    #[arg(skip)]
    pub leader_elect: bool,
}

/// Everything that can be set.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Pods that name this scheduler are placed.
    pub scheduler_name: String,
    /// Weights of the score plugins.
    pub weights: Weights,
    /// Weight of required affinity of placed pods in scores.
    pub hard_affinity_weight: i64,
    /// First pause after a failed attempt.
    pub first_backoff: Duration,
    /// Longest pause.
    pub longest_backoff: Duration,
    /// Leader election.
    pub election: Election,
}

/// Leader election.
#[derive(Debug, Clone, PartialEq)]
pub struct Election {
    /// Whether there is one.
    pub on: bool,
    /// Time a lease that is not renewed stays valid.
    pub lease: Duration,
    /// Time the holder tries to renew.
    pub renew: Duration,
    /// Time between attempts.
    pub retry: Duration,
    /// Name of the lease.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            scheduler_name: "default-scheduler".to_owned(),
            weights: Weights::default(),
            hard_affinity_weight: 1,
            first_backoff: Duration::from_secs(1),
            longest_backoff: Duration::from_secs(10),
            election: Election {
                on: false,
                lease: Duration::from_secs(15),
                renew: Duration::from_secs(10),
                retry: Duration::from_secs(2),
                name: "kube-scheduler".to_owned(),
                namespace: "kube-system".to_owned(),
            },
        }
    }
}

impl Config {
    /// Reads the file, if any, over the defaults.
    ///
    /// # Errors
    /// Names the file, the field and the fix.
    pub fn settings(&self) -> Result<Settings, Error> {
        let mut settings = Settings::default();
        settings.election.on = self.leader_elect;
        let Some(path) = &self.config else { return Ok(settings) };
        let fail = |reason: String| Error::Config(format!("--config {}: {reason}", path.display()));
        let text = read(path).map_err(fail)?;
        parse(&text, settings).map_err(fail)
    }
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|e| format!("cannot be read: {e}"))
}

/// Reads a KubeSchedulerConfiguration over `settings`.
pub(crate) fn parse(text: &str, mut settings: Settings) -> Result<Settings, String> {
    let file: Value = serde_norway::from_str(text).map_err(|e| format!("no YAML: {e}"))?;
    let fields = file.as_object().ok_or("not a KubeSchedulerConfiguration")?;
    for (name, value) in fields {
        match name.as_str() {
            "apiVersion" if value == "kubescheduler.config.k8s.io/v1" => {}
            "kind" if value == "KubeSchedulerConfiguration" => {}
            "apiVersion" | "kind" => return Err(format!("{name}: {value} is not supported")),
            "leaderElection" => election(value, &mut settings.election)?,
            "podInitialBackoffSeconds" => settings.first_backoff = seconds(name, value)?,
            "podMaxBackoffSeconds" => settings.longest_backoff = seconds(name, value)?,
            "percentageOfNodesToScore" => match value.as_i64() {
                // All nodes are always scored.
                Some(0 | 100) => {}
                _ => return Err("not supported yet: percentageOfNodesToScore".to_owned()),
            },
            "profiles" => profiles(value, &mut settings)?,
            "clientConnection"
            | "enableContentionProfiling"
            | "enableProfiling"
            | "extenders"
            | "healthzBindAddress"
            | "metricsBindAddress"
            | "parallelism"
            | "delayCacheUntilActive" => return Err(format!("not supported yet: {name}")),
            _ => return Err(format!("unknown field {name:?}")),
        }
    }
    if settings.first_backoff.is_zero() || settings.longest_backoff < settings.first_backoff {
        return Err(
            "podMaxBackoffSeconds must not be less than podInitialBackoffSeconds".to_owned()
        );
    }
    Ok(settings)
}

fn seconds(name: &str, value: &Value) -> Result<Duration, String> {
    let seconds = value.as_u64().filter(|s| *s > 0 && *s < 1 << 32);
    seconds.map(Duration::from_secs).ok_or_else(|| format!("{name}: {value} is no positive number"))
}

fn election(value: &Value, election: &mut Election) -> Result<(), String> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    for (name, value) in value.as_object().into_iter().flatten() {
        let duration =
            || parse_duration(&text(value)).map_err(|e| format!("leaderElection.{name}: {e}"));
        match name.as_str() {
            "leaderElect" => election.on = value.as_bool().unwrap_or(election.on),
            "leaseDuration" => election.lease = duration()?,
            "renewDeadline" => election.renew = duration()?,
            "retryPeriod" => election.retry = duration()?,
            "resourceName" => election.name = text(value),
            "resourceNamespace" => election.namespace = text(value),
            "resourceLock" if value == "leases" => {}
            _ => return Err(format!("not supported yet: leaderElection.{name}: {value}")),
        }
    }
    if election.lease <= election.renew || election.renew <= election.retry {
        return Err(
            "leaderElection: leaseDuration > renewDeadline > retryPeriod must hold".to_owned()
        );
    }
    Ok(())
}

fn profiles(value: &Value, settings: &mut Settings) -> Result<(), String> {
    let list = value.as_array().ok_or("profiles is no list")?;
    if list.len() > 1 {
        return Err("not supported yet: profiles[1]: one profile at a time".to_owned());
    }
    for (name, value) in list.iter().filter_map(Value::as_object).flatten() {
        match name.as_str() {
            "schedulerName" => {
                let text = value.as_str().filter(|t| !t.is_empty());
                text.ok_or("profiles[0].schedulerName is empty")?
                    .clone_into(&mut settings.scheduler_name);
            }
            "plugins" => plugins(value, &mut settings.weights)?,
            "pluginConfig" => plugin_config(value, settings)?,
            "percentageOfNodesToScore" if matches!(value.as_i64(), Some(0 | 100)) => {}
            _ => return Err(format!("not supported yet: profiles[0].{name}")),
        }
    }
    Ok(())
}

fn weight<'a>(weights: &'a mut Weights, name: &str) -> Option<&'a mut i64> {
    Some(match name {
        "NodeResourcesFit" => &mut weights.fit,
        "NodeResourcesBalancedAllocation" => &mut weights.balanced,
        "TaintToleration" => &mut weights.taints,
        "NodeAffinity" => &mut weights.node_affinity,
        "PodTopologySpread" => &mut weights.spread,
        "InterPodAffinity" => &mut weights.pod_affinity,
        "ImageLocality" => &mut weights.images,
        _ => return None,
    })
}

const SCORES: &[&str] = &[
    "NodeResourcesFit",
    "NodeResourcesBalancedAllocation",
    "TaintToleration",
    "NodeAffinity",
    "PodTopologySpread",
    "InterPodAffinity",
    "ImageLocality",
];

fn plugins(value: &Value, weights: &mut Weights) -> Result<(), String> {
    for (point, sets) in value.as_object().into_iter().flatten() {
        let at = |name: &str| format!("not supported yet: profiles[0].plugins.{point}: {name}");
        if point != "score" && point != "multiPoint" {
            return Err(at("this extension point"));
        }
        let list = |set: &str| sets[set].as_array().cloned().unwrap_or_default();
        for plugin in list("disabled") {
            let name = plugin["name"].as_str().unwrap_or_default();
            // Where a plugin also filters, it cannot be turned off as a whole.
            let only_scores = ["NodeResourcesBalancedAllocation", "ImageLocality"].contains(&name);
            if name == "*" && point == "score" {
                SCORES
                    .iter()
                    .filter_map(|n| {
                        let _: () = *weight(weights, n)? = 0;
                        Some(())
                    })
                    .count();
            } else if point == "multiPoint" && !only_scores {
                return Err(at(&format!("disabling {name:?}")));
            } else {
                *weight(weights, name).ok_or_else(|| at(&format!("plugin {name:?}")))? = 0;
            }
        }
        for plugin in list("enabled") {
            let name = plugin["name"].as_str().unwrap_or_default();
            let known = weight(weights, name).ok_or_else(|| at(&format!("plugin {name:?}")))?;
            match plugin["weight"].as_i64() {
                Some(number) if (0..=100).contains(&number) => *known = number.max(1),
                None => *known = (*known).max(1),
                Some(number) => return Err(format!("weight {number} of {name} is not 0 to 100")),
            }
        }
    }
    Ok(())
}

fn plugin_config(value: &Value, settings: &mut Settings) -> Result<(), String> {
    for entry in value.as_array().into_iter().flatten() {
        let name = entry["name"].as_str().unwrap_or_default();
        for (field, value) in entry["args"].as_object().into_iter().flatten() {
            match (name, field.as_str()) {
                (_, "apiVersion" | "kind") => {}
                ("InterPodAffinity", "hardPodAffinityWeight") => {
                    let number = value.as_i64().filter(|n| (0..=100).contains(n));
                    settings.hard_affinity_weight =
                        number.ok_or("hardPodAffinityWeight is not 0 to 100")?;
                }
                _ => return Err(format!("not supported yet: pluginConfig of {name}: {field}")),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Settings, String> {
        let head = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n";
        parse(&format!("{head}{body}"), Settings::default())
    }

    #[test]
    fn file_sets_name_weights_and_times() {
        let settings = read(
            "podInitialBackoffSeconds: 2\nleaderElection: {leaderElect: true, leaseDuration: 20s}\n\
             profiles:\n- schedulerName: mine\n  plugins:\n    score:\n      disabled: [{name: ImageLocality}]\n\
             \x20     enabled: [{name: NodeAffinity, weight: 7}]\n",
        )
        .unwrap();
        assert_eq!(settings.scheduler_name, "mine");
        assert_eq!((settings.weights.images, settings.weights.node_affinity), (0, 7));
        assert_eq!(settings.first_backoff, Duration::from_secs(2));
        assert!(settings.election.on);
    }

    #[test]
    fn what_is_not_supported_is_named() {
        for (body, want) in [
            ("extenders: []", "not supported yet: extenders"),
            ("colour: red", "unknown field \"colour\""),
            ("profiles: [{}, {}]", "not supported yet: profiles[1]"),
            ("profiles: [{plugins: {filter: {}}}]", "profiles[0].plugins.filter"),
            (
                "profiles: [{plugins: {multiPoint: {disabled: [{name: NodePorts}]}}}]",
                "disabling \"NodePorts\"",
            ),
            ("percentageOfNodesToScore: 50", "not supported yet: percentageOfNodesToScore"),
            ("podMaxBackoffSeconds: 0", "no positive number"),
        ] {
            let error = read(body).unwrap_err();
            assert!(error.contains(want), "{error}");
        }
        assert!(parse("apiVersion: v2", Settings::default()).is_err());
        assert!(parse("- a", Settings::default()).is_err());
    }
}

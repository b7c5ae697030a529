//! States of one alerting rule.

use std::collections::BTreeMap;

use metrics_model::{Labels, METRIC_NAME};

use super::Template;
use crate::config::Rule;

/// How long a resolved alert is remembered, milliseconds.
const REMEMBER: i64 = 15 * 60_000;

/// Where an alert stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlertState {
    /// It was firing and no longer is.
    Inactive,
    /// It holds, but not yet for long enough.
    Pending,
    /// It holds.
    Firing,
}

impl AlertState {
    /// The API's word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Inactive => "inactive",
            Self::Pending => "pending",
            Self::Firing => "firing",
        }
    }
}

/// An alert as the API shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct AlertView {
    /// Labels, `alertname` included.
    pub labels: Labels,
    /// Annotations, filled in.
    pub annotations: BTreeMap<String, String>,
    /// State.
    pub state: AlertState,
    /// Since when the expression holds, milliseconds.
    pub active_at: i64,
    /// Newest value.
    pub value: f64,
}

#[derive(Debug, Clone)]
struct Alert {
    view: AlertView,
    /// When it last held; for `keep_firing_for`.
    held: i64,
    resolved: Option<i64>,
}

/// The alerts of one rule.
#[derive(Debug)]
pub(super) struct Alerts {
    hold: i64,
    keep: i64,
    name: String,
    labels: Vec<(String, Template)>,
    annotations: Vec<(String, Template)>,
    active: BTreeMap<Labels, Alert>,
}

impl Alerts {
    pub(super) fn new(
        rule: &Rule,
        group_labels: &BTreeMap<String, String>,
    ) -> Result<Self, String> {
        let parse = |map: &BTreeMap<String, String>| {
            map.iter()
                .map(|(name, text)| {
                    Ok((
                        name.clone(),
                        Template::parse(text).map_err(|e| format!("{:?}: {e}", rule.alert))?,
                    ))
                })
                .collect::<Result<Vec<_>, String>>()
        };
        let mut labels = group_labels.clone();
        labels.extend(rule.labels.clone());
        Ok(Self {
            hold: rule.hold.0,
            keep: rule.keep_firing_for.0,
            name: rule.alert.clone(),
            labels: parse(&labels)?,
            annotations: parse(&rule.annotations)?,
            active: BTreeMap::new(),
        })
    }

    /// Takes the expression's result at `now` over; answers the samples to store.
    pub(super) fn update(
        &mut self,
        result: &[(Labels, f64)],
        now: i64,
    ) -> Result<Vec<(Labels, f64)>, String> {
        let mut held = BTreeMap::new();
        for (series, value) in result {
            let mut labels = series.without_name().to_builder();
            for (name, template) in &self.labels {
                labels.set(name, &template.expand(series, *value));
            }
            labels.set("alertname", &self.name);
            let annotations = self
                .annotations
                .iter()
                .map(|(n, t)| (n.clone(), t.expand(series, *value)))
                .collect();
            if held.insert(labels.build(), (*value, annotations)).is_some() {
                return Err(
                    "vector contains metrics with the same labelset after applying alert labels"
                        .to_owned(),
                );
            }
        }
        for (labels, (value, annotations)) in &held {
            let fresh =
                self.active.get(labels).is_none_or(|a| a.view.state == AlertState::Inactive);
            if fresh {
                let view = AlertView {
                    labels: labels.clone(),
                    annotations: BTreeMap::new(),
                    state: AlertState::Pending,
                    active_at: now,
                    value: *value,
                };
                self.active.insert(labels.clone(), Alert { view, held: now, resolved: None });
            }
            if let Some(alert) = self.active.get_mut(labels) {
                alert.view.value = *value;
                alert.view.annotations = BTreeMap::clone(annotations);
                alert.held = now;
                if now - alert.view.active_at >= self.hold {
                    alert.view.state = AlertState::Firing;
                }
            }
        }
        let keep = self.keep;
        self.active.retain(|labels, alert| {
            if held.contains_key(labels) {
                return true;
            }
            match alert.view.state {
                AlertState::Pending => return false,
                AlertState::Firing if keep > 0 && now - alert.held < keep => return true,
                AlertState::Firing => {
                    alert.view.state = AlertState::Inactive;
                    alert.resolved = Some(now);
                }
                AlertState::Inactive => {}
            }
            alert.resolved.is_none_or(|at| now - at < REMEMBER)
        });
        Ok(self.samples())
    }

    fn samples(&self) -> Vec<(Labels, f64)> {
        let mut out = Vec::new();
        for alert in self.active.values().filter(|a| a.view.state != AlertState::Inactive) {
            let mut labels = alert.view.labels.to_builder();
            labels.set(METRIC_NAME, "ALERTS_FOR_STATE");
            out.push((labels.clone().build(), (alert.view.active_at / 1000) as f64));
            labels.set(METRIC_NAME, "ALERTS");
            labels.set("alertstate", alert.view.state.word());
            out.push((labels.build(), 1.0));
        }
        out
    }

    pub(super) fn views(&self) -> Vec<AlertView> {
        self.active
            .values()
            .map(|a| a.view.clone())
            .filter(|v| v.state != AlertState::Inactive)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Millis;

    #[test]
    fn alert_goes_from_pending_to_firing_to_gone() {
        let rule = Rule { alert: "Down".to_owned(), hold: Millis(10_000), ..Rule::default() };
        let mut alerts = Alerts::new(&rule, &BTreeMap::new()).unwrap();
        let bad = vec![(Labels::from_pairs([("__name__", "up"), ("job", "x")]), 0.0)];
        let state = |alerts: &Alerts| alerts.views().first().map(|v| v.state);
        alerts.update(&bad, 0).unwrap();
        assert_eq!(state(&alerts), Some(AlertState::Pending));
        let samples = alerts.update(&bad, 10_000).unwrap();
        assert_eq!(state(&alerts), Some(AlertState::Firing));
        assert!(samples.iter().any(|(l, v)| l.get("alertstate") == "firing" && *v == 1.0));
        alerts.update(&[], 20_000).unwrap();
        assert_eq!(state(&alerts), None);
    }
}

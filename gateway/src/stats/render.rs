//! Stats as text: Envoy's flat form, JSON, and Prometheus text format 0.0.4.

use std::collections::BTreeMap;
use std::fmt::Write;

use regex::Regex;
use serde_json::{Value, json};

use super::histogram::BOUNDS;
use super::{Registry, Stat};

/// How `/stats` is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `name: value` lines.
    Text,
    /// One JSON object.
    Json,
    /// Prometheus text format.
    Prometheus,
}

/// Which stats are written.
#[derive(Debug, Default)]
pub struct Filter {
    /// Flat names this expression finds.
    pub name: Option<Regex>,
    /// Leave out what never changed.
    pub used_only: bool,
}

impl Filter {
    fn keeps(&self, name: &str, used: bool) -> bool {
        (used || !self.used_only) && self.name.as_ref().is_none_or(|regex| regex.is_match(name))
    }
}

/// All stats that pass the filter. `extra` adds gauges that are computed on demand.
pub fn render(
    registry: &Registry,
    extra: &[(String, i64)],
    filter: &Filter,
    format: Format,
) -> String {
    match format {
        Format::Text => text(registry, extra, filter),
        Format::Json => json_form(registry, extra, filter),
        Format::Prometheus => prometheus(registry, extra, filter),
    }
}

fn visit(registry: &Registry, extra: &[(String, i64)], f: &mut dyn FnMut(&str, Stat<'_>)) {
    registry.visit(f);
    for (name, value) in extra {
        f(name, Stat::Gauge(*value));
    }
}

fn text(registry: &Registry, extra: &[(String, i64)], filter: &Filter) -> String {
    let (mut values, mut histograms) = (BTreeMap::new(), BTreeMap::new());
    visit(registry, extra, &mut |name, stat| match stat {
        Stat::Counter(counter) if filter.keeps(name, counter.get() > 0) => {
            values.insert(name.to_owned(), counter.get().to_string());
        }
        Stat::Gauge(value) if filter.keeps(name, value != 0) => {
            values.insert(name.to_owned(), value.to_string());
        }
        Stat::Histogram(histogram) => {
            let total = histogram.cumulative().1;
            if filter.keeps(name, total > 0) {
                histograms.insert(name.to_owned(), summary(histogram));
            }
        }
        _ => {}
    });
    let mut out = String::new();
    for (name, value) in values.iter().chain(&histograms) {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{name}: {value}");
    }
    out
}

fn summary(histogram: &super::Histogram) -> String {
    if histogram.cumulative().1 == 0 {
        return "No recorded values".to_owned();
    }
    let points =
        [("P50", 0.5), ("P90", 0.9), ("P95", 0.95), ("P99", 0.99), ("P99.9", 0.999), ("P100", 1.0)];
    let parts: Vec<String> = points
        .iter()
        .map(|(name, q)| format!("{name}(nan,{:.4})", histogram.quantile(*q).unwrap_or(f64::NAN)))
        .collect();
    parts.join(" ")
}

fn json_form(registry: &Registry, extra: &[(String, i64)], filter: &Filter) -> String {
    let mut stats: Vec<Value> = Vec::new();
    visit(registry, extra, &mut |name, stat| match stat {
        Stat::Counter(counter) if filter.keeps(name, counter.get() > 0) => {
            stats.push(json!({"name": name, "value": counter.get()}));
        }
        Stat::Gauge(value) if filter.keeps(name, value != 0) => {
            stats.push(json!({"name": name, "value": value}))
        }
        _ => {}
    });
    stats.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    json!({ "stats": stats }).to_string()
}

#[derive(Default)]
struct Family {
    kind: &'static str,
    lines: Vec<String>,
}

fn prometheus(registry: &Registry, extra: &[(String, i64)], filter: &Filter) -> String {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    visit(registry, extra, &mut |flat, stat| {
        let (name, labels) = labelled(flat);
        let (kind, used) = match &stat {
            Stat::Counter(counter) => ("counter", counter.get() > 0),
            Stat::Gauge(value) => ("gauge", *value != 0),
            Stat::Histogram(histogram) => ("histogram", histogram.cumulative().1 > 0),
        };
        if !filter.keeps(flat, used) {
            return;
        }
        let family = families.entry(name.clone()).or_default();
        family.kind = kind;
        match stat {
            Stat::Counter(counter) => {
                family.lines.push(line(&name, &labels, &counter.get().to_string()))
            }
            Stat::Gauge(value) => family.lines.push(line(&name, &labels, &value.to_string())),
            Stat::Histogram(histogram) => {
                let (counts, total) = histogram.cumulative();
                let bucket = format!("{name}_bucket");
                for (bound, count) in BOUNDS.iter().zip(counts) {
                    let mut labels = labels.clone();
                    labels.push(("le".to_owned(), bound.to_string()));
                    family.lines.push(line(&bucket, &labels, &count.to_string()));
                }
                let mut inf = labels.clone();
                inf.push(("le".to_owned(), "+Inf".to_owned()));
                family.lines.push(line(&bucket, &inf, &total.to_string()));
                family.lines.push(line(
                    &format!("{name}_sum"),
                    &labels,
                    &histogram.sum().to_string(),
                ));
                family.lines.push(line(&format!("{name}_count"), &labels, &total.to_string()));
            }
        }
    });
    let mut out = String::new();
    for (name, family) in families {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "# TYPE {name} {}", family.kind);
        out.extend(family.lines);
    }
    out
}

fn line(name: &str, labels: &[(String, String)], value: &str) -> String {
    let labels: Vec<String> = labels
        .iter()
        .map(|(key, value)| {
            format!(
                "{key}=\"{}\"",
                value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
            )
        })
        .collect();
    format!("{name}{{{}}} {value}\n", labels.join(","))
}

/// Splits a flat name into the metric's name and the labels Envoy's tag extraction finds in it.
fn labelled(flat: &str) -> (String, Vec<(String, String)>) {
    let mut labels = Vec::new();
    let (scope, rest) = flat.split_once('.').unwrap_or(("", flat));
    let (mut name, tag) = match scope {
        // Names of clusters may contain dots; those of stats within the scope are known.
        "cluster" | "http" | "tcp" => {
            let (inner, stat) = split_scope(rest);
            let label = match scope {
                "cluster" => "envoy_cluster_name",
                "http" => "envoy_http_conn_manager_prefix",
                _ => "envoy_tcp_prefix",
            };
            (format!("{scope}.{stat}"), Some((label, inner.to_owned())))
        }
        "listener" => {
            let (inner, stat) = rest.rsplit_once('.').unwrap_or(("", rest));
            (format!("listener.{stat}"), Some(("envoy_listener_address", inner.to_owned())))
        }
        _ => (flat.to_owned(), None),
    };
    if let Some((head, code)) = name.rsplit_once('_') {
        let head = head.to_owned();
        if code.len() == 3 && code.ends_with("xx") && code.as_bytes()[0].is_ascii_digit() {
            labels.push(("envoy_response_code_class".to_owned(), code[..1].to_owned()));
            name = format!("{head}_xx");
        } else if code.len() == 3 && code.bytes().all(|b| b.is_ascii_digit()) {
            labels.push(("envoy_response_code".to_owned(), code.to_owned()));
            name = head;
        }
    }
    if let Some((label, value)) = tag {
        let mut value = value;
        if let Some((prefix, route)) = value.clone().split_once(".rds.") {
            labels.push(("envoy_rds_route_config".to_owned(), route.to_owned()));
            value = prefix.to_owned();
            name = name.replacen("http.", "http_rds.", 1);
        }
        labels.push((label.to_owned(), value));
    }
    (format!("envoy_{}", name.replace(['.', '-'], "_")), labels)
}

/// Scope name and stat: the stat is the last part, or the last two for nested scopes.
fn split_scope(rest: &str) -> (&str, String) {
    let (inner, stat) = rest.rsplit_once('.').unwrap_or(("", rest));
    match inner.rsplit_once('.') {
        Some((name, nested @ ("outlier_detection" | "health_check"))) => {
            (name, format!("{nested}.{stat}"))
        }
        _ => (inner, stat.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_envoys_metric_names() {
        for (flat, want) in [
            (
                "cluster.ok.upstream_rq_total",
                r#"envoy_cluster_upstream_rq_total{envoy_cluster_name="ok"} 1"#,
            ),
            (
                "cluster.a.b.upstream_rq_2xx",
                r#"envoy_cluster_upstream_rq_xx{envoy_response_code_class="2",envoy_cluster_name="a.b"} 1"#,
            ),
            (
                "cluster.ok.upstream_rq_503",
                r#"envoy_cluster_upstream_rq{envoy_response_code="503",envoy_cluster_name="ok"} 1"#,
            ),
            (
                "cluster.ok.outlier_detection.ejections_active",
                r#"envoy_cluster_outlier_detection_ejections_active{envoy_cluster_name="ok"} 1"#,
            ),
            (
                "listener.127.0.0.1_80.downstream_cx_total",
                r#"envoy_listener_downstream_cx_total{envoy_listener_address="127.0.0.1_80"} 1"#,
            ),
            ("server.uptime", "envoy_server_uptime{} 1"),
        ] {
            let (name, labels) = labelled(flat);
            assert_eq!(line(&name, &labels, "1").trim_end(), want);
        }
    }
}

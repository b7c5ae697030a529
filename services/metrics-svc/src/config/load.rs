//! Reading the file: defaults, strictness, one-line errors.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use metrics_model::Labels;
use serde::Deserialize;
use thiserror::Error;

use super::{Millis, ScrapeConfig, Size, Unsupported};

/// Why the configuration cannot be used; one line.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("{0}")]
pub struct LoadError(String);

impl LoadError {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// `global`
#[derive(Debug, Clone, Deserialize)]
#[allow(dead_code, reason = "refused fields are only ever read by refusing them")]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "named as in the configuration")]
pub struct GlobalConfig {
    pub scrape_interval: Millis,
    pub scrape_timeout: Millis,
    pub evaluation_interval: Millis,
    pub rule_query_offset: Millis,
    pub external_labels: BTreeMap<String, String>,
    pub scrape_protocols: Vec<String>,
    pub body_size_limit: Option<Size>,
    pub sample_limit: Option<u64>,
    pub target_limit: Option<u64>,
    pub label_limit: Option<u64>,
    pub label_name_length_limit: Option<u64>,
    pub label_value_length_limit: Option<u64>,
    pub keep_dropped_targets: Option<u64>,
    pub query_log_file: Option<Unsupported>,
    pub scrape_failure_log_file: Option<Unsupported>,
    pub runtime: Option<Unsupported>,
    pub metric_name_validation_scheme: Option<Unsupported>,
    pub metric_name_escaping_scheme: Option<Unsupported>,
    pub convert_classic_histograms_to_nhcb: Option<Unsupported>,
    pub always_scrape_classic_histograms: Option<Unsupported>,
    pub scrape_native_histograms: Option<Unsupported>,
    pub extra_scrape_metrics: Option<Unsupported>,
}

impl Default for GlobalConfig {
    fn default() -> Self {
        Self {
            scrape_interval: Millis(60_000),
            scrape_timeout: Millis(10_000),
            evaluation_interval: Millis(60_000),
            rule_query_offset: Millis(0),
            external_labels: BTreeMap::new(),
            scrape_protocols: Vec::new(),
            body_size_limit: None,
            sample_limit: None,
            target_limit: None,
            label_limit: None,
            label_name_length_limit: None,
            label_value_length_limit: None,
            keep_dropped_targets: None,
            query_log_file: None,
            scrape_failure_log_file: None,
            runtime: None,
            metric_name_validation_scheme: None,
            metric_name_escaping_scheme: None,
            convert_classic_histograms_to_nhcb: None,
            always_scrape_classic_histograms: None,
            scrape_native_histograms: None,
            extra_scrape_metrics: None,
        }
    }
}

/// The whole file.
#[derive(Debug, Clone, Default, Deserialize)]
#[allow(dead_code, reason = "refused fields are only ever read by refusing them")]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "named as in the configuration")]
pub struct Config {
    pub global: GlobalConfig,
    pub rule_files: Vec<PathBuf>,
    pub scrape_configs: Vec<ScrapeConfig>,
    pub scrape_config_files: Option<Unsupported>,
    pub alerting: Option<Unsupported>,
    pub remote_write: Option<Unsupported>,
    pub remote_read: Option<Unsupported>,
    pub storage: Option<Unsupported>,
    pub tracing: Option<Unsupported>,
    pub otlp: Option<Unsupported>,
    pub runtime: Option<Unsupported>,
    /// The text, for /api/v1/status/config.
    #[serde(skip)]
    pub text: String,
    /// `global.external_labels`
    #[serde(skip)]
    pub external_labels: Labels,
}

/// Reads `path`.
///
/// # Errors
/// One line that names the file, and the field and line or the rule that was broken.
pub fn load(path: &Path) -> Result<Config, LoadError> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        LoadError(format!("error loading config from {path:?}: open {}: {error}", path.display()))
    })?;
    let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    parse(&text, dir)
        .map_err(|error| LoadError(format!("error loading config from {path:?}: {error}")))
}

/// Reads a configuration whose relative file names are relative to `dir`.
///
/// # Errors
/// As [`load`], without the file's name.
pub fn parse(text: &str, dir: &Path) -> Result<Config, LoadError> {
    let parsed: Result<Option<Config>, _> = serde_norway::from_str(text);
    let mut config = parsed.map_err(|e| LoadError(explain(&e.to_string())))?.unwrap_or_default();
    config.text = masked(text);
    let global = config.global.clone();
    if global.scrape_timeout.0 > global.scrape_interval.0 && text.contains("scrape_timeout") {
        return Err(LoadError::new("global scrape timeout greater than scrape interval"));
    }
    config.external_labels = Labels::from_pairs(&global.external_labels);
    if let Some(bad) =
        global.external_labels.keys().find(|name| !metrics_model::is_label_name(name))
    {
        return Err(LoadError(format!("{bad:?} is not a valid label name")));
    }
    let sections = sections(text);
    let mut names = std::collections::HashSet::new();
    for (at, scrape) in config.scrape_configs.iter_mut().enumerate() {
        scrape.resolve(&global, dir)?;
        scrape.source = format!("{global:?}{}", sections.get(at).cloned().unwrap_or_default());
        if !names.insert(scrape.job_name.clone()) {
            return Err(LoadError(format!(
                "found multiple scrape configs with job name {:?}",
                scrape.job_name
            )));
        }
    }
    for file in &mut config.rule_files {
        *file = dir.join(&*file);
    }
    Ok(config)
}

/// The scrape sections as texts.
fn sections(text: &str) -> Vec<String> {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Sections {
        scrape_configs: Vec<serde_norway::Value>,
    }
    let parsed: Sections = serde_norway::from_str(text).unwrap_or_default();
    parsed.scrape_configs.iter().filter_map(|s| serde_norway::to_string(s).ok()).collect()
}

/// Puts the YAML reader's message into Prometheus' words, on one line.
pub(super) fn explain(message: &str) -> String {
    let line = message
        .rsplit_once(" at line ")
        .map(|(_, rest)| rest.split(' ').next().unwrap_or_default());
    let line = line.unwrap_or("1");
    let what = message.rsplit_once(" at line ").map_or(message, |(what, _)| what);
    let (path, reason) = what.split_once(": ").unwrap_or(("", what));
    if let Some(rest) = what.split_once("unknown field `").map(|(_, rest)| rest) {
        let field = rest.split('`').next().unwrap_or_default();
        return format!(
            "yaml: unmarshal errors: line {line}: field {field} not found in type {}",
            go_type(path)
        );
    }
    if reason == "not supported yet" || what.ends_with("not supported yet") {
        return format!("line {line}: not supported yet: {path}");
    }
    let one_line: Vec<&str> = what.split('\n').map(str::trim).collect();
    format!("yaml: line {line}: {}", one_line.join(" "))
}

/// The Go type whose fields a path leads to.
fn go_type(path: &str) -> &'static str {
    let last = path.rsplit('.').next().unwrap_or_default().split('[').next().unwrap_or_default();
    match last {
        "relabel_configs" | "metric_relabel_configs" => "relabel.plain",
        "kubernetes_sd_configs" => "kubernetes.plain",
        "file_sd_configs" => "file.plain",
        "basic_auth" => "config.BasicAuth",
        "authorization" => "config.Authorization",
        "groups" => "rulefmt.RuleGroup",
        "rules" => "rulefmt.Rule",
        _ => "config.plain",
    }
}

/// The text with secrets blotted out.
fn masked(text: &str) -> String {
    let secret = |line: &str| {
        let key =
            line.trim_start().trim_start_matches("- ").split(':').next().unwrap_or_default().trim();
        matches!(key, "password" | "bearer_token" | "credentials" | "client_secret" | "key")
    };
    let lines = text.lines().map(|line| match line.split_once(':') {
        Some((key, value)) if secret(line) && !value.trim().is_empty() => {
            format!("{key}: <secret>")
        }
        _ => line.to_owned(),
    });
    lines.fold(String::new(), |all, line| all + &line + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        parse(text, Path::new("/etc")).unwrap_err().to_string()
    }

    #[test]
    fn unknown_fields_are_named_with_their_line() {
        assert_eq!(
            error("global:\n  scrape_interval: 5s\n  colour: red\n"),
            "yaml: unmarshal errors: line 3: field colour not found in type config.plain"
        );
        assert_eq!(
            error("scrape_configs:\n- job_name: a\n  relabel_configs:\n  - regexp: x\n"),
            "yaml: unmarshal errors: line 4: field regexp not found in type relabel.plain"
        );
    }

    #[test]
    fn known_but_missing_parts_are_refused_by_name() {
        let text = error("remote_write:\n- url: http://x\n");
        assert!(text.contains("not supported yet: remote_write"), "{text}");
        let text = error("scrape_configs:\n- job_name: a\n  oauth2: {}\n");
        assert!(text.contains("not supported yet: scrape_configs[0].oauth2"), "{text}");
    }

    #[test]
    fn broken_rules_are_named() {
        for (text, want) in [
            (
                "scrape_configs:\n- job_name: a\n- job_name: a\n",
                "found multiple scrape configs with job name \"a\"",
            ),
            (
                "scrape_configs:\n- job_name: a\n  scrape_interval: 1s\n  scrape_timeout: 2s\n",
                "scrape timeout greater than",
            ),
            (
                "scrape_configs:\n- job_name: a\n  relabel_configs:\n  - action: x\n",
                "unknown relabel action \"x\"",
            ),
            ("global:\n  scrape_interval: 1x\n", "not a valid duration string"),
            ("global: [", "yaml: line"),
            (
                "scrape_configs:\n- job_name: a\n  relabel_configs:\n  - action: keep\n    regex: '('\n",
                "error parsing regexp",
            ),
        ] {
            let got = error(text);
            assert!(got.contains(want) && !got.contains('\n'), "{text:?}: {got}");
        }
    }

    #[test]
    fn defaults_are_filled_in() {
        let config = parse("global:\n  scrape_interval: 5s\nscrape_configs:\n- job_name: a\n  basic_auth:\n    username: u\n    password: hidden\n", Path::new("/etc")).unwrap();
        let scrape = &config.scrape_configs[0];
        assert_eq!((scrape.scrape_interval, scrape.scrape_timeout), (Millis(5000), Millis(5000)));
        assert!(!config.text.contains("hidden"));
        assert!(parse("", Path::new("/")).unwrap().scrape_configs.is_empty());
    }
}

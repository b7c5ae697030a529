//! Rule files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use metrics_model::{is_label_name, is_metric_name};
use metrics_promql::Expr;
use serde::Deserialize;

use super::load::explain;
use super::{LoadError, Millis};

/// One recording or alerting rule.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "named as in the configuration")]
pub struct Rule {
    pub record: String,
    pub alert: String,
    pub expr: String,
    #[serde(rename = "for")]
    pub hold: Millis,
    pub keep_firing_for: Millis,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// `expr`, parsed.
    #[serde(skip)]
    pub parsed: Expr,
}

impl Default for Rule {
    fn default() -> Self {
        Self {
            record: String::new(),
            alert: String::new(),
            expr: String::new(),
            hold: Millis(0),
            keep_firing_for: Millis(0),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            parsed: Expr::Number(0.0),
        }
    }
}

/// Rules evaluated one after the other.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "named as in the configuration")]
pub struct RuleGroup {
    pub name: String,
    #[serde(default)]
    pub interval: Option<Millis>,
    #[serde(default)]
    pub query_offset: Option<Millis>,
    #[serde(default)]
    pub limit: usize,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// Where the group stands.
    #[serde(skip)]
    pub file: PathBuf,
}

/// A rule file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "named as in the configuration")]
pub struct RuleFile {
    pub groups: Vec<RuleGroup>,
}

/// Reads the files a list of patterns (`dir/*.yml`) names.
///
/// # Errors
/// One line that names the file and the rule.
pub fn load_rules(patterns: &[PathBuf]) -> Result<Vec<RuleGroup>, LoadError> {
    let mut groups: Vec<RuleGroup> = Vec::new();
    for path in patterns.iter().flat_map(|pattern| expand(pattern)) {
        let named = |text: String| LoadError::new(format!("{}: {text}", path.display()));
        let text = std::fs::read_to_string(&path).map_err(|e| named(e.to_string()))?;
        let file: Option<RuleFile> =
            serde_norway::from_str(&text).map_err(|e| named(explain(&e.to_string())))?;
        for mut group in file.unwrap_or_default().groups {
            if group.name.is_empty() {
                return Err(named("Groupname must not be empty".to_owned()));
            }
            if groups.iter().any(|g| g.name == group.name && g.file == path) {
                return Err(named(format!(
                    "groupname: \"{}\" is repeated in the same file",
                    group.name
                )));
            }
            for (at, rule) in group.rules.iter_mut().enumerate() {
                check(rule)
                    .map_err(|e| named(format!("group {:?}, rule {}, {e}", group.name, at + 1)))?;
            }
            group.file.clone_from(&path);
            groups.push(group);
        }
    }
    Ok(groups)
}

fn check(rule: &mut Rule) -> Result<(), String> {
    match (rule.record.is_empty(), rule.alert.is_empty()) {
        (false, false) => return Err("only one of 'record' and 'alert' must be set".to_owned()),
        (true, true) => return Err("one of 'record' or 'alert' must be set".to_owned()),
        _ => {}
    }
    let name = if rule.record.is_empty() { &rule.alert } else { &rule.record };
    if rule.expr.is_empty() {
        return Err(format!("{name:?}: field 'expr' must be set in rule"));
    }
    rule.parsed = metrics_promql::parse(&rule.expr)
        .map_err(|e| format!("{name:?}: could not parse expression: {e}"))?;
    if let Some(bad) =
        rule.labels.keys().find(|l| !is_label_name(l) || *l == metrics_model::METRIC_NAME)
    {
        return Err(format!("{name:?}: invalid label name: {bad}"));
    }
    if rule.alert.is_empty() {
        if !rule.annotations.is_empty() {
            return Err(format!("{name:?}: invalid field 'annotations' in recording rule"));
        }
        if rule.hold.0 != 0 || rule.keep_firing_for.0 != 0 {
            return Err(format!("{name:?}: invalid field 'for' in recording rule"));
        }
        if !is_metric_name(&rule.record) {
            return Err(format!("invalid recording rule name: {}", rule.record));
        }
    }
    Ok(())
}

/// The files a pattern names; `*` and `?` may stand in the last part.
pub fn expand(pattern: &Path) -> Vec<PathBuf> {
    let name = pattern.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    if !name.contains(['*', '?']) {
        return vec![pattern.to_owned()];
    }
    let mut regex = String::new();
    for c in name.chars() {
        match c {
            '*' => regex.push_str("[^/]*"),
            '?' => regex.push_str("[^/]"),
            other => regex.push_str(&regex::escape(other.encode_utf8(&mut [0; 4]))),
        }
    }
    let Ok(regex) = metrics_model::anchored(&regex) else { return Vec::new() };
    let dir = pattern.parent().unwrap_or(Path::new("."));
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .filter(|e| e.file_name().to_str().is_some_and(|n| regex.is_match(n)))
        .map(|e| e.path())
        .collect();
    found.sort();
    found
}

//! `relabel_configs`.

use metrics_model::{Action, RelabelRule, anchored, is_label_name};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Raw {
    source_labels: Vec<String>,
    separator: String,
    target_label: String,
    regex: String,
    modulus: u64,
    replacement: Option<String>,
    action: String,
}

impl Default for Raw {
    fn default() -> Self {
        Self {
            source_labels: Vec::new(),
            separator: ";".to_owned(),
            target_label: String::new(),
            regex: "(.*)".to_owned(),
            modulus: 0,
            replacement: None,
            action: "replace".to_owned(),
        }
    }
}

fn check(raw: Raw) -> Result<RelabelRule, String> {
    let action = match raw.action.to_lowercase().as_str() {
        "replace" => Action::Replace,
        "lowercase" => Action::Lowercase,
        "uppercase" => Action::Uppercase,
        "keep" => Action::Keep,
        "drop" => Action::Drop,
        "keepequal" => Action::KeepEqual,
        "dropequal" => Action::DropEqual,
        "hashmod" => Action::HashMod,
        "labelmap" => Action::LabelMap,
        "labeldrop" => Action::LabelDrop,
        "labelkeep" => Action::LabelKeep,
        other => return Err(format!("unknown relabel action {other:?}")),
    };
    let name = &raw.action;
    let needs_target = matches!(
        action,
        Action::Replace
            | Action::Lowercase
            | Action::Uppercase
            | Action::KeepEqual
            | Action::DropEqual
            | Action::HashMod
    );
    if needs_target && raw.target_label.is_empty() {
        return Err(format!(
            "relabel configuration for {name} action requires 'target_label' value"
        ));
    }
    let template = action == Action::Replace && raw.target_label.contains('$');
    if needs_target && !template && !is_label_name(&raw.target_label) {
        return Err(format!("{:?} is invalid 'target_label' for {name} action", raw.target_label));
    }
    if action == Action::HashMod && raw.modulus == 0 {
        return Err("relabel configuration for hashmod requires non-zero modulus".to_owned());
    }
    Ok(RelabelRule {
        action,
        source_labels: raw.source_labels,
        separator: raw.separator,
        regex: anchored(&raw.regex).map_err(|e| e.to_string())?,
        modulus: raw.modulus,
        target_label: raw.target_label,
        replacement: raw.replacement.unwrap_or_else(|| "$1".to_owned()),
    })
}

/// Reads a list of rules.
pub(super) fn rules<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<RelabelRule>, D::Error> {
    struct One(RelabelRule);
    impl<'de> Deserialize<'de> for One {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            check(Raw::deserialize(deserializer)?).map(One).map_err(D::Error::custom)
        }
    }
    Ok(Option::<Vec<One>>::deserialize(deserializer)?
        .unwrap_or_default()
        .into_iter()
        .map(|one| one.0)
        .collect())
}

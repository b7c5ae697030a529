//! Completed indexes of a job as text: `1,3-5,7`.

use std::collections::BTreeSet;

use serde_json::{Value, json};

/// Indexes a text may name; more cannot be asked for.
const MOST: i64 = 100_000;

/// Reads the text; parts that are none are left out.
pub(super) fn parse(text: &str) -> BTreeSet<i64> {
    let mut all = BTreeSet::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<i64>(), last.parse::<i64>()) {
            all.extend(first.max(0)..=last.min(MOST));
        }
    }
    all
}

/// Writes the text; runs of at least three are shortened, as upstream does.
pub(super) fn write(all: &BTreeSet<i64>) -> String {
    let mut runs: Vec<(i64, i64)> = Vec::new();
    for index in all {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == *index => *last = *index,
            _ => runs.push((*index, *index)),
        }
    }
    let text = |(first, last): (i64, i64)| match last - first {
        0 => first.to_string(),
        1 => format!("{first},{last}"),
        _ => format!("{first}-{last}"),
    };
    runs.into_iter().map(text).collect::<Vec<_>>().join(",")
}

/// Gives every container the index as JOB_COMPLETION_INDEX.
pub(super) fn expose(spec: &mut Value, annotation: &str) {
    let variable = json!({"name": "JOB_COMPLETION_INDEX",
        "valueFrom": {"fieldRef": {"fieldPath": format!("metadata.annotations['{annotation}']")}}});
    for list in ["containers", "initContainers"] {
        for container in spec[list].as_array_mut().into_iter().flatten() {
            let mut all = container["env"].as_array().cloned().unwrap_or_default();
            if !all.iter().any(|v| v["name"] == "JOB_COMPLETION_INDEX") {
                all.push(variable.clone());
                container["env"] = json!(all);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_shortened_and_read_back() {
        let all = BTreeSet::from([0, 1, 3, 5, 6, 7]);
        assert_eq!(write(&all), "0,1,3,5-7");
        assert_eq!(parse("0,1,3,5-7"), all);
        assert_eq!(parse(""), BTreeSet::new());
        assert!(parse("x,9-,-3,5-99999999999999999999").is_empty());
        assert_eq!(parse("0-99999999999").len(), 100_001);
    }
}

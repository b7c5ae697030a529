//! Relabelling: rules that rewrite, keep or drop label sets.

use md5::{Digest, Md5};
use regex::Regex;

use crate::labels::{LabelsBuilder, is_label_name};

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as in the configuration")]
pub enum Action {
    Replace,
    Lowercase,
    Uppercase,
    Keep,
    Drop,
    KeepEqual,
    DropEqual,
    HashMod,
    LabelMap,
    LabelDrop,
    LabelKeep,
}

/// One rule, ready to apply.
#[derive(Debug, Clone)]
pub struct RelabelRule {
    /// What to do.
    pub action: Action,
    /// Labels whose values are joined into the source text.
    pub source_labels: Vec<String>,
    /// What stands between them.
    pub separator: String,
    /// Compiled with [`crate::anchored`].
    pub regex: Regex,
    /// Divisor of `hashmod`.
    pub modulus: u64,
    /// Label to write; may hold `$1` for `replace`.
    pub target_label: String,
    /// Text to write; may hold `$1`.
    pub replacement: String,
}

impl RelabelRule {
    /// Applies the rules in order. `false` means the set is dropped.
    pub fn apply_all(rules: &[Self], labels: &mut LabelsBuilder) -> bool {
        rules.iter().all(|rule| rule.apply(labels))
    }

    fn apply(&self, labels: &mut LabelsBuilder) -> bool {
        let source: Vec<&str> = self.source_labels.iter().map(|name| labels.get(name)).collect();
        let source = source.join(&self.separator);
        match self.action {
            Action::Keep => return self.regex.is_match(&source),
            Action::Drop => return !self.regex.is_match(&source),
            Action::KeepEqual => return labels.get(&self.target_label) == source,
            Action::DropEqual => return labels.get(&self.target_label) != source,
            Action::Replace => self.replace(&source, labels),
            Action::Lowercase => labels.set(&self.target_label, &source.to_lowercase()),
            Action::Uppercase => labels.set(&self.target_label, &source.to_uppercase()),
            Action::HashMod => {
                let digest = Md5::digest(source.as_bytes());
                let mut low = [0; 8];
                low.copy_from_slice(&digest[8..]);
                let hash = u64::from_be_bytes(low);
                labels.set(&self.target_label, &(hash % self.modulus.max(1)).to_string());
            }
            Action::LabelMap => self.map(labels),
            Action::LabelDrop => labels.retain(|name| !self.regex.is_match(name)),
            Action::LabelKeep => labels.retain(|name| self.regex.is_match(name)),
        }
        true
    }

    fn replace(&self, source: &str, labels: &mut LabelsBuilder) {
        let Some(captures) = self.regex.captures(source) else { return };
        let target = expand(&captures, &self.target_label);
        if !is_label_name(&target) {
            return;
        }
        labels.set(&target, &expand(&captures, &self.replacement));
    }

    fn map(&self, labels: &mut LabelsBuilder) {
        let mapped: Vec<(String, String)> = labels
            .pairs()
            .iter()
            .filter_map(|(name, value)| {
                let captures = self.regex.captures(name)?;
                Some((expand(&captures, &self.replacement), value.clone()))
            })
            .collect();
        for (name, value) in mapped {
            labels.set(&name, &value);
        }
    }
}

/// Expands `$1`, `${1}`, `$name`, `$$` as Go does: an unknown group is empty.
pub fn expand(captures: &regex::Captures<'_>, template: &str) -> String {
    let mut out = String::new();
    captures.expand(template, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Labels, anchored};

    fn rule(
        action: Action,
        source: &[&str],
        regex: &str,
        target: &str,
        replacement: &str,
    ) -> RelabelRule {
        RelabelRule {
            action,
            source_labels: source.iter().map(|s| (*s).to_owned()).collect(),
            separator: ";".to_owned(),
            regex: anchored(regex).unwrap(),
            modulus: 10,
            target_label: target.to_owned(),
            replacement: replacement.to_owned(),
        }
    }

    fn run(rules: &[RelabelRule]) -> Option<Labels> {
        let mut labels =
            Labels::from_pairs([("a", "foo"), ("b", "bar"), ("__meta_x", "Y")]).to_builder();
        RelabelRule::apply_all(rules, &mut labels).then(|| labels.build())
    }

    #[test]
    fn actions_do_what_they_say() {
        let out = run(&[rule(Action::Replace, &["a", "b"], "f(.*);(.*)", "c", "$2-$1")]).unwrap();
        assert_eq!(out.get("c"), "bar-oo");
        assert_eq!(
            run(&[rule(Action::Replace, &["a"], "f(.*)", "n_$1", "x")]).unwrap().get("n_oo"),
            "x"
        );
        assert!(run(&[rule(Action::Keep, &["a"], "bar", "", "")]).is_none());
        assert!(run(&[rule(Action::Drop, &["a"], "bar", "", "")]).is_some());
        assert!(run(&[rule(Action::KeepEqual, &["a"], "(.*)", "b", "")]).is_none());
        assert_eq!(
            run(&[rule(Action::LabelMap, &[], "__meta_(.+)", "", "m_$1")]).unwrap().get("m_x"),
            "Y"
        );
        assert_eq!(run(&[rule(Action::LabelDrop, &[], "a|__.*", "", "")]).unwrap().len(), 1);
        assert_eq!(run(&[rule(Action::LabelKeep, &[], "a", "", "")]).unwrap().len(), 1);
        assert_eq!(
            run(&[rule(Action::Uppercase, &["a"], "(.*)", "a", "")]).unwrap().get("a"),
            "FOO"
        );
    }

    #[test]
    fn hashmod_is_the_md5_of_the_source() {
        // md5("foo") ends in 0x37b51d194a7513e4... low 8 bytes as big endian.
        let digest = Md5::digest(b"foo");
        let mut low = [0; 8];
        low.copy_from_slice(&digest[8..]);
        let want = (u64::from_be_bytes(low) % 10).to_string();
        assert_eq!(run(&[rule(Action::HashMod, &["a"], "(.*)", "h", "")]).unwrap().get("h"), want);
    }
}

//! Label sets, packed into one allocation.
//!
//! The text holds, for every label in order of name, the name and the value, each after its length. A length is
//! written in six-bit groups as ASCII characters, so that the whole stays valid UTF-8 and slicing needs no
//! decoding. Equal sets have equal texts.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use crate::METRIC_NAME;

/// An immutable label set, sorted by name, without empty values. Clones share the text.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Labels(Arc<str>);

impl Default for Labels {
    fn default() -> Self {
        Self(Arc::from(""))
    }
}

const MORE: u8 = 0x40;

fn push_len(out: &mut String, mut len: usize) {
    loop {
        let low = (len & 0x3f) as u8;
        len >>= 6;
        if len == 0 {
            out.push(low as char);
            return;
        }
        out.push((low | MORE) as char);
    }
}

fn take(text: &str) -> Option<(&str, &str)> {
    let (mut len, mut shift, mut at) = (0usize, 0u32, 0usize);
    loop {
        let byte = *text.as_bytes().get(at)?;
        at += 1;
        len |= usize::from(byte & 0x3f) << shift;
        if byte & MORE == 0 {
            break;
        }
        shift += 6;
    }
    Some((text.get(at..at + len)?, &text[at + len..]))
}

/// Iterates over the labels of a set, in order of name.
#[derive(Debug, Clone)]
pub struct Iter<'a>(&'a str);

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, rest) = take(self.0)?;
        let (value, rest) = take(rest)?;
        self.0 = rest;
        Some((name, value))
    }
}

impl Labels {
    /// A set from pairs in any order; of equal names the last wins, empty values are left out.
    pub fn from_pairs<N: AsRef<str>, V: AsRef<str>>(
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        let mut builder = LabelsBuilder::default();
        for (name, value) in pairs {
            builder.set(name.as_ref(), value.as_ref());
        }
        builder.build()
    }

    fn pack<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let mut text = String::new();
        for (name, value) in pairs {
            push_len(&mut text, name.len());
            text.push_str(name);
            push_len(&mut text, value.len());
            text.push_str(value);
        }
        Self(Arc::from(text))
    }

    /// The labels in order of name.
    pub fn iter(&self) -> Iter<'_> {
        Iter(&self.0)
    }

    /// The value of a label; `""` when it is not there.
    pub fn get(&self, name: &str) -> &str {
        self.iter().find(|(n, _)| *n == name).map_or("", |(_, value)| value)
    }

    /// Whether the set has the label.
    pub fn has(&self, name: &str) -> bool {
        self.iter().any(|(n, _)| n == name)
    }

    /// The metric name.
    pub fn name(&self) -> &str {
        self.get(METRIC_NAME)
    }

    /// Number of labels.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The set without the metric name.
    #[must_use]
    pub fn without_name(&self) -> Self {
        if self.has(METRIC_NAME) { self.retain(|name| name != METRIC_NAME) } else { self.clone() }
    }

    /// The labels whose name passes.
    #[must_use]
    pub fn retain(&self, mut keep: impl FnMut(&str) -> bool) -> Self {
        Self::pack(self.iter().filter(|(name, _)| keep(name)))
    }

    /// A builder that starts with these labels.
    pub fn to_builder(&self) -> LabelsBuilder {
        LabelsBuilder { pairs: self.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect() }
    }
}

impl Ord for Labels {
    fn cmp(&self, other: &Self) -> Ordering {
        self.iter().cmp(other.iter())
    }
}

impl PartialOrd for Labels {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// `{a="b", c="d"}` with Go's quoting.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, (name, value)) in self.iter().enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            write!(f, "{comma}{name}={value:?}")?;
        }
        f.write_str("}")
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A label set that changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelsBuilder {
    pairs: Vec<(String, String)>,
}

impl LabelsBuilder {
    /// Sets a label; an empty value removes it.
    pub fn set(&mut self, name: &str, value: &str) {
        if value.is_empty() {
            self.remove(name);
            return;
        }
        match self.pairs.iter_mut().find(|(n, _)| n == name) {
            Some((_, old)) => value.clone_into(old),
            None => self.pairs.push((name.to_owned(), value.to_owned())),
        }
    }

    /// Removes a label.
    pub fn remove(&mut self, name: &str) {
        self.pairs.retain(|(n, _)| n != name);
    }

    /// The value of a label; `""` when it is not there.
    pub fn get(&self, name: &str) -> &str {
        self.pairs.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value)
    }

    /// The labels, in no order.
    pub fn pairs(&self) -> &[(String, String)] {
        &self.pairs
    }

    /// Keeps the labels whose name passes.
    pub fn retain(&mut self, mut keep: impl FnMut(&str) -> bool) {
        self.pairs.retain(|(name, _)| keep(name));
    }

    /// The set.
    pub fn build(mut self) -> Labels {
        self.pairs.sort_unstable();
        Labels::pack(self.pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())))
    }
}

/// `[a-zA-Z_][a-zA-Z0-9_]*`
pub fn is_label_name(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// `[a-zA-Z_:][a-zA-Z0-9_:]*`
pub fn is_metric_name(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_labels_keep_names_and_values() {
        let long = "é".repeat(5000);
        let set = Labels::from_pairs([("b", long.as_str()), ("a", "1"), ("c", "")]);
        assert_eq!(set.iter().collect::<Vec<_>>(), [("a", "1"), ("b", long.as_str())]);
        assert_eq!((set.get("b"), set.get("x"), set.len()), (long.as_str(), "", 2));
        assert_eq!(set, Labels::from_pairs([("a", "1"), ("b", long.as_str())]));
    }

    #[test]
    fn order_is_by_name_then_value() {
        let set = |pairs: &[(&str, &str)]| Labels::from_pairs(pairs.iter().copied());
        assert!(set(&[("a", "aaa")]) < set(&[("a", "b")]));
        assert!(set(&[("a", "1")]) < set(&[("a", "1"), ("b", "1")]));
        assert!(set(&[("a", "1"), ("b", "1")]) < set(&[("a", "2")]));
    }
}

//! Sets of series references and how matchers choose among them.

use std::collections::HashMap;

use metrics_model::{Labels, Matcher};

use crate::Error;

/// What [`select`] needs of an index.
pub(crate) trait Lookup {
    /// Every series, ascending.
    fn all(&self) -> Result<Vec<u64>, Error>;
    /// Series with exactly this label, ascending.
    fn list(&self, name: &str, value: &str) -> Result<Vec<u64>, Error>;
    /// Values of a label that pass.
    fn values(&self, name: &str, keep: &mut dyn FnMut(&str) -> bool) -> Vec<String>;
}

/// Series that pass all matchers, ascending.
///
/// A matcher that accepts the empty value cannot be looked up (series without the label count too); it takes
/// away the series whose value it refuses.
pub(crate) fn select(index: &impl Lookup, matchers: &[Matcher]) -> Result<Vec<u64>, Error> {
    let mut found: Option<Vec<u64>> = None;
    for matcher in matchers.iter().filter(|m| !m.matches("")) {
        if found.as_ref().is_some_and(Vec::is_empty) {
            return Ok(Vec::new());
        }
        let list = match matcher.set() {
            Some(values) => union(index, matcher.name(), values)?,
            None => {
                let values = index.values(matcher.name(), &mut |v| matcher.matches(v));
                union(index, matcher.name(), values.iter().map(String::as_str).collect())?
            }
        };
        found = Some(match found {
            None => list,
            Some(before) => intersect(&before, &list),
        });
    }
    let mut found = match found {
        Some(found) => found,
        None => index.all()?,
    };
    for matcher in matchers.iter().filter(|m| m.matches("")) {
        if found.is_empty() {
            break;
        }
        let refused = index.values(matcher.name(), &mut |v| !matcher.matches(v));
        let list = union(index, matcher.name(), refused.iter().map(String::as_str).collect())?;
        found = subtract(&found, &list);
    }
    Ok(found)
}

fn union(index: &impl Lookup, name: &str, values: Vec<&str>) -> Result<Vec<u64>, Error> {
    let mut out = Vec::new();
    let many = values.len() > 1;
    for value in values {
        out.extend(index.list(name, value)?);
    }
    if many {
        out.sort_unstable();
        out.dedup();
    }
    Ok(out)
}

fn intersect(a: &[u64], b: &[u64]) -> Vec<u64> {
    let (small, large) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    if small.len() * 16 < large.len() {
        return small.iter().filter(|id| large.binary_search(id).is_ok()).copied().collect();
    }
    let mut rest = large.iter().peekable();
    let mut out = Vec::with_capacity(small.len());
    for id in small {
        while rest.next_if(|other| *other < id).is_some() {}
        if rest.peek() == Some(&id) {
            out.push(*id);
        }
    }
    out
}

fn subtract(a: &[u64], b: &[u64]) -> Vec<u64> {
    let mut rest = b.iter().peekable();
    let mut out = Vec::with_capacity(a.len());
    for id in a {
        while rest.next_if(|other| *other < id).is_some() {}
        if rest.peek() != Some(&id) {
            out.push(*id);
        }
    }
    out
}

/// Postings of the head.
#[derive(Debug, Default)]
pub(crate) struct MemPostings {
    all: Vec<u64>,
    lists: HashMap<String, HashMap<String, Vec<u64>>>,
}

fn insert(list: &mut Vec<u64>, id: u64) {
    if list.last().is_none_or(|last| *last < id) {
        list.push(id);
    } else if let Err(at) = list.binary_search(&id) {
        list.insert(at, id);
    }
}

impl MemPostings {
    pub(crate) fn add(&mut self, id: u64, labels: &Labels) {
        insert(&mut self.all, id);
        for (name, value) in labels.iter() {
            if !self.lists.contains_key(name) {
                self.lists.insert(name.to_owned(), HashMap::new());
            }
            let Some(values) = self.lists.get_mut(name) else { continue };
            match values.get_mut(value) {
                Some(list) => insert(list, id),
                None => drop(values.insert(value.to_owned(), vec![id])),
            }
        }
    }

    /// Forgets series; `labels` are theirs.
    pub(crate) fn remove<'a>(&mut self, gone: &[u64], labels: impl Iterator<Item = &'a Labels>) {
        self.all = subtract(&self.all, gone);
        let mut touched: Vec<(&str, &str)> = labels.flat_map(Labels::iter).collect();
        touched.sort_unstable();
        touched.dedup();
        for (name, value) in touched {
            let Some(values) = self.lists.get_mut(name) else { continue };
            if let Some(list) = values.get_mut(value) {
                *list = subtract(list, gone);
                if list.is_empty() {
                    values.remove(value);
                }
            }
            if values.is_empty() {
                self.lists.remove(name);
            }
        }
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.lists.keys().map(String::as_str)
    }

    pub(crate) fn label_values(&self, name: &str) -> impl Iterator<Item = (&str, usize)> {
        self.lists.get(name).into_iter().flatten().map(|(value, list)| (value.as_str(), list.len()))
    }

    pub(crate) fn pairs(&self) -> usize {
        self.lists.values().map(HashMap::len).sum()
    }
}

impl Lookup for MemPostings {
    fn all(&self) -> Result<Vec<u64>, Error> {
        Ok(self.all.clone())
    }

    fn list(&self, name: &str, value: &str) -> Result<Vec<u64>, Error> {
        Ok(self.lists.get(name).and_then(|values| values.get(value)).cloned().unwrap_or_default())
    }

    fn values(&self, name: &str, keep: &mut dyn FnMut(&str) -> bool) -> Vec<String> {
        let values = self.lists.get(name).into_iter().flatten();
        values.map(|(value, _)| value).filter(|v| keep(v)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use metrics_model::MatchOp;

    use super::*;

    #[test]
    fn matchers_choose_series() {
        let mut postings = MemPostings::default();
        for (id, job, zone) in [(1, "a", "x"), (2, "a", ""), (3, "b", "y"), (4, "c", "x")] {
            postings.add(id, &Labels::from_pairs([("job", job), ("zone", zone)]));
        }
        let pick = |list: &[(MatchOp, &str, &str)]| {
            let matchers: Vec<Matcher> =
                list.iter().map(|(op, n, v)| Matcher::new(*op, n, v).unwrap()).collect();
            select(&postings, &matchers).unwrap()
        };
        assert_eq!(pick(&[(MatchOp::Equal, "job", "a")]), [1, 2]);
        assert_eq!(pick(&[(MatchOp::Equal, "zone", "")]), [2]);
        assert_eq!(pick(&[(MatchOp::NotEqual, "zone", "x")]), [2, 3]);
        assert_eq!(
            pick(&[(MatchOp::Regex, "job", "a|c"), (MatchOp::NotEqual, "zone", "")]),
            [1, 4]
        );
        assert_eq!(pick(&[(MatchOp::NotRegex, "job", "[ab]")]), [4]);
        assert_eq!(pick(&[(MatchOp::Regex, "zone", "x?")]), [1, 2, 4]);
    }
}

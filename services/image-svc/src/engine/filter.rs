//! containerd's filters: `name==x`, `labels."a.b"~=^v`, comma for and; several filters are or (containerd, pkg/filters).

use std::collections::BTreeMap;

use regex_lite::Regex;
use thiserror::Error;

/// Why a filter does not parse.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("filter {0:?} does not parse: invalid argument")]
pub struct FilterError(String);

#[derive(Debug)]
enum Test {
    Present,
    Equal(String),
    NotEqual(String),
    Matches(Regex),
}

/// Filters of one request; empty lets everything through.
#[derive(Debug, Default)]
pub struct Filters(Vec<Vec<(Vec<String>, Test)>>);

impl Filters {
    /// Reads the filters of a request.
    ///
    /// # Errors
    /// Names the filter that does not parse.
    pub fn parse(texts: &[String]) -> Result<Self, FilterError> {
        let parsed = texts.iter().filter(|text| !text.is_empty()).map(|text| all_of(text));
        parsed.collect::<Result<_, _>>().map(Self)
    }

    /// Whether something with these fields and labels passes.
    pub fn pass(&self, fields: &[(&str, &str)], labels: &BTreeMap<String, String>) -> bool {
        let value = |path: &[String]| -> Option<String> {
            match path {
                [labelled, name] if labelled == "labels" => labels.get(name).cloned(),
                [name] => fields
                    .iter()
                    .find(|(field, _)| field == name)
                    .map(|(_, value)| (*value).to_owned()),
                _ => None,
            }
        };
        let holds = |(path, test): &(Vec<String>, Test)| {
            let value = value(path);
            match test {
                Test::Present => value.is_some(),
                Test::Equal(want) => value.as_ref() == Some(want),
                Test::NotEqual(want) => value.as_ref() != Some(want),
                Test::Matches(regex) => value.is_some_and(|value| regex.is_match(&value)),
            }
        };
        self.0.is_empty() || self.0.iter().any(|all| all.iter().all(holds))
    }
}

fn all_of(text: &str) -> Result<Vec<(Vec<String>, Test)>, FilterError> {
    let fail = || FilterError(text.chars().take(200).collect());
    let mut rest = text;
    let mut tests = Vec::new();
    loop {
        let mut path = Vec::new();
        loop {
            path.push(word(&mut rest, &['.', '=', '!', '~', ',']).ok_or_else(fail)?);
            match rest.strip_prefix('.') {
                Some(tail) => rest = tail,
                None => break,
            }
        }
        let mut operand = |operator: &str| {
            rest = rest.strip_prefix(operator)?;
            word(&mut rest, &[','])
        };
        let test = if let Some(value) = operand("==") {
            Test::Equal(value)
        } else if let Some(value) = operand("!=") {
            Test::NotEqual(value)
        } else if let Some(value) = operand("~=") {
            Test::Matches(Regex::new(&value).map_err(|_| fail())?)
        } else {
            Test::Present
        };
        tests.push((path, test));
        match rest.strip_prefix(',') {
            Some(tail) => rest = tail,
            None if rest.is_empty() => return Ok(tests),
            None => return Err(fail()),
        }
    }
}

/// A word up to one of `ends`, or a quoted one.
fn word(rest: &mut &str, ends: &[char]) -> Option<String> {
    let quote = rest.chars().next().filter(|c| matches!(c, '"' | '/' | '|'));
    if let Some(quote) = quote {
        let (inner, tail) = rest[1..].split_once(quote)?;
        *rest = tail;
        return Some(inner.to_owned());
    }
    let end = rest.find(ends).unwrap_or(rest.len());
    let found = rest[..end].to_owned();
    *rest = &rest[end..];
    (!found.is_empty()).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_follow_containerd() {
        let labels = BTreeMap::from([("a.b".to_owned(), "v1".to_owned())]);
        let pass = |text: &str| {
            Filters::parse(&[text.to_owned()])
                .unwrap()
                .pass(&[("name", "x"), ("kind", "active")], &labels)
        };
        assert!(
            pass("name==x")
                && pass("name==x,labels.\"a.b\"==v1")
                && pass("labels.\"a.b\"")
                && pass("name~=/^x$/")
        );
        assert!(
            !pass("name==y")
                && !pass("name!=x")
                && !pass("labels.other")
                && !pass("name==x,kind==view")
        );
        assert!(
            Filters::parse(&["name=x".to_owned()]).is_err()
                && Filters::parse(&["==".to_owned()]).is_err()
        );
        assert!(Filters::parse(&[]).unwrap().pass(&[], &labels));
    }
}

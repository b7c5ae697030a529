//! Label matchers.

use std::collections::HashSet;
use std::fmt;

use regex::Regex;

use crate::pattern::{PatternError, anchored};

/// How a matcher compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MatchOp {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`
    Regex,
    /// `!~`
    NotRegex,
}

impl fmt::Display for MatchOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Regex => "=~",
            Self::NotRegex => "!~",
        })
    }
}

#[derive(Debug, Clone)]
enum Compiled {
    Text,
    /// An alternation of plain texts.
    Set(HashSet<String>),
    Pattern(Regex),
}

/// One condition on a label; a label that is not there counts as empty.
#[derive(Debug, Clone)]
pub struct Matcher {
    name: String,
    op: MatchOp,
    value: String,
    compiled: Compiled,
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, self.op, &self.value) == (&other.name, other.op, &other.value)
    }
}

impl Matcher {
    /// A matcher.
    ///
    /// # Errors
    /// When a pattern does not compile.
    pub fn new(op: MatchOp, name: &str, value: &str) -> Result<Self, PatternError> {
        let compiled = match op {
            MatchOp::Equal | MatchOp::NotEqual => Compiled::Text,
            MatchOp::Regex | MatchOp::NotRegex => match literals(value) {
                Some(set) => Compiled::Set(set),
                None => Compiled::Pattern(anchored(value)?),
            },
        };
        Ok(Self { name: name.to_owned(), op, value: value.to_owned(), compiled })
    }

    /// `name="value"`
    pub fn equal(name: &str, value: &str) -> Self {
        Self {
            name: name.to_owned(),
            op: MatchOp::Equal,
            value: value.to_owned(),
            compiled: Compiled::Text,
        }
    }

    /// The label.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The comparison.
    pub fn op(&self) -> MatchOp {
        self.op
    }

    /// The text or pattern.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// The texts that match, when the matcher asks for a finite set.
    pub fn set(&self) -> Option<Vec<&str>> {
        match (&self.compiled, self.op) {
            (Compiled::Text, MatchOp::Equal) => Some(vec![&self.value]),
            (Compiled::Set(set), MatchOp::Regex) => Some(set.iter().map(String::as_str).collect()),
            _ => None,
        }
    }

    /// Whether a value passes.
    pub fn matches(&self, value: &str) -> bool {
        let found = match &self.compiled {
            Compiled::Text => self.value == value,
            Compiled::Set(set) => set.contains(value),
            Compiled::Pattern(pattern) => pattern.is_match(value),
        };
        found == matches!(self.op, MatchOp::Equal | MatchOp::Regex)
    }
}

fn literals(pattern: &str) -> Option<HashSet<String>> {
    let special = |c: char| {
        matches!(c, '\\' | '.' | '+' | '*' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '^' | '$')
    };
    (!pattern.contains(special)).then(|| pattern.split('|').map(str::to_owned).collect())
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{:?}", self.name, self.op, self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matchers_compare() {
        let check = |op, pattern, value| Matcher::new(op, "a", pattern).unwrap().matches(value);
        assert!(check(MatchOp::Regex, "x|y", "y"));
        assert!(!check(MatchOp::Regex, "x|y", "xy"));
        assert!(check(MatchOp::NotRegex, "x.*", "y"));
        assert!(check(MatchOp::NotEqual, "x", ""));
        assert!(check(MatchOp::Regex, "x|", ""));
    }
}

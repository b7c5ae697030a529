//! Go's RE2 patterns in the syntax of the `regex` crate.
//!
//! Differences that matter: in Go `\d \w \s \b` are ASCII only, `\Q...\E` quotes, and inside a class `[`, `&&`,
//! `--` and `~~` are ordinary characters.

use regex::{Regex, RegexBuilder};
use thiserror::Error;

/// Memory one compiled pattern may take, in bytes.
const SIZE_LIMIT: usize = 4 << 20;

/// A pattern that does not compile.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("error parsing regexp: {reason}: `{pattern}`")]
pub struct PatternError {
    pattern: String,
    reason: String,
}

/// Compiles a pattern that must match the whole text, newlines included.
///
/// # Errors
/// When it is no pattern or too large.
pub fn anchored(pattern: &str) -> Result<Regex, PatternError> {
    let whole = format!("^(?s:{})$", translate(pattern));
    RegexBuilder::new(&whole)
        .size_limit(SIZE_LIMIT)
        .build()
        .map_err(|error| PatternError { pattern: pattern.to_owned(), reason: reason(&error) })
}

fn reason(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(_) => "expression nests too deeply or is too large".to_owned(),
        other => {
            let text = other.to_string();
            let last = text.lines().last().unwrap_or_default().trim();
            last.trim_start_matches("error: ").to_owned()
        }
    }
}

/// Rewrites a Go pattern.
pub fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut rest = pattern;
    let mut in_class = false;
    while let Some(c) = rest.chars().next() {
        let size = c.len_utf8();
        if c == '\\' {
            rest = escape(rest, in_class, &mut out);
            continue;
        }
        if in_class {
            match c {
                '[' if rest.starts_with("[:") => {
                    let end = rest.find(":]").map_or(size, |n| n + 2);
                    out.push_str(&rest[..end]);
                    rest = &rest[end..];
                    continue;
                }
                '[' | '&' | '~' => {
                    out.push('\\');
                    out.push(c);
                }
                '-' if rest.starts_with("--") => out.push_str("\\-"),
                ']' => {
                    in_class = false;
                    out.push(c);
                }
                _ => out.push(c),
            }
        } else if c == '[' {
            in_class = true;
            out.push(c);
            rest = &rest[1..];
            if let Some(after) = rest.strip_prefix('^') {
                out.push('^');
                rest = after;
            }
            if let Some(after) = rest.strip_prefix(']') {
                out.push_str("\\]");
                rest = after;
            }
            continue;
        } else {
            out.push(c);
        }
        rest = &rest[size..];
    }
    out
}

/// Copies one escape and returns what follows it.
fn escape<'a>(rest: &'a str, in_class: bool, out: &mut String) -> &'a str {
    let Some(c) = rest[1..].chars().next() else {
        out.push('\\');
        return "";
    };
    let after = &rest[1 + c.len_utf8()..];
    if c == 'Q' && !in_class {
        let (quoted, after) = after.split_once("\\E").unwrap_or((after, ""));
        out.push_str(&regex::escape(quoted));
        return after;
    }
    let replacement = match (c, in_class) {
        ('d', _) => "[0-9]",
        ('D', _) => "[^0-9]",
        ('w', _) => "[0-9A-Za-z_]",
        ('W', _) => "[^0-9A-Za-z_]",
        ('s', _) => "[\\t\\n\\x0c\\r ]",
        ('S', _) => "[^\\t\\n\\x0c\\r ]",
        ('b', false) => "(?-u:\\b)",
        _ => {
            out.push('\\');
            out.push(c);
            return after;
        }
    };
    out.push_str(replacement);
    after
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_the_whole_text() {
        let matches = |pattern: &str, text: &str| anchored(pattern).unwrap().is_match(text);
        assert!(matches("a|b", "b"));
        assert!(!matches("a|b", "ab"));
        assert!(matches("a.c", "a\nc"));
        assert!(matches("", ""));
    }

    #[test]
    fn go_syntax_is_understood() {
        let matches = |pattern: &str, text: &str| anchored(pattern).unwrap().is_match(text);
        assert!(matches(r"\Qa.b\E+", "a.b"));
        assert!(matches("[a&&b]+", "a&b"));
        assert!(matches("[[]", "["));
        assert!(matches("[]a]+", "]a"));
        assert!(matches("[^]]", "x"));
        assert!(matches("[[:alpha:]]+", "abc"));
        assert!(!matches(r"\d", "٣"));
        assert!(matches(r"[\d-]+", "1-2"));
        assert!(anchored("(").is_err());
        assert!(anchored("(((a{1000}){1000}){1000})").is_err());
    }
}

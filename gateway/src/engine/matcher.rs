//! Predicates over header values, query parameters and paths.

use http::HeaderMap;
use http::header::HeaderName;
use regex::Regex;

/// Matches one string.
#[derive(Debug, Clone)]
pub enum StringMatch {
    /// The whole value.
    Exact(String, bool),
    /// Its start.
    Prefix(String, bool),
    /// Its end.
    Suffix(String, bool),
    /// Any part.
    Contains(String, bool),
    /// A regular expression over the whole value.
    Regex(Regex),
}

impl StringMatch {
    /// Whether `value` matches. The flag of the variants says whether case is ignored.
    pub fn matches(&self, value: &str) -> bool {
        let fold = |text: &str, ignore: &bool| {
            if *ignore { text.to_ascii_lowercase() } else { text.to_owned() }
        };
        match self {
            Self::Exact(want, true) => want.eq_ignore_ascii_case(value),
            Self::Exact(want, false) => want == value,
            Self::Prefix(want, ignore) => fold(value, ignore).starts_with(&fold(want, ignore)),
            Self::Suffix(want, ignore) => fold(value, ignore).ends_with(&fold(want, ignore)),
            Self::Contains(want, ignore) => fold(value, ignore).contains(&fold(want, ignore)),
            Self::Regex(regex) => regex.is_match(value),
        }
    }
}

/// What a header must be.
#[derive(Debug, Clone)]
pub enum HeaderTest {
    /// There, or not there.
    Present(bool),
    /// A string.
    Text(StringMatch),
    /// A decimal integer in `[start, end)`.
    Range(i64, i64),
}

/// One header predicate. Several values of a header are joined with commas first.
#[derive(Debug, Clone)]
pub struct HeaderMatch {
    /// Which header; the pseudo headers `:method`, `:path`, `:authority` and `:scheme` too.
    pub name: MatchedHeader,
    /// What it must be.
    pub test: HeaderTest,
    /// Turn the result around.
    pub invert: bool,
    /// A header that is not there counts as empty.
    pub missing_is_empty: bool,
}

/// A real or a pseudo header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MatchedHeader {
    /// `:method`
    Method,
    /// `:path`, with the query.
    Path,
    /// `:authority`
    Authority,
    /// `:scheme`
    Scheme,
    /// Any other.
    Name(HeaderName),
}

/// What predicates may look at.
#[derive(Debug, Clone, Copy)]
pub struct RequestView<'a> {
    /// Method.
    pub method: &'a str,
    /// Path with query.
    pub path: &'a str,
    /// Host and port.
    pub authority: &'a str,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Headers.
    pub headers: &'a HeaderMap,
}

impl HeaderMatch {
    /// Whether the request satisfies the predicate.
    pub fn matches(&self, request: &RequestView<'_>) -> bool {
        let joined;
        let value = match &self.name {
            MatchedHeader::Method => Some(request.method),
            MatchedHeader::Path => Some(request.path),
            MatchedHeader::Authority => Some(request.authority),
            MatchedHeader::Scheme => Some(request.scheme),
            MatchedHeader::Name(name) => {
                let mut values = request.headers.get_all(name).iter();
                match (values.next(), values.next()) {
                    (None, _) => None,
                    (Some(one), None) => one.to_str().ok(),
                    _ => {
                        let all: Vec<&str> = request
                            .headers
                            .get_all(name)
                            .iter()
                            .filter_map(|v| v.to_str().ok())
                            .collect();
                        joined = all.join(",");
                        Some(joined.as_str())
                    }
                }
            }
        };
        let value = if self.missing_is_empty { value.or(Some("")) } else { value };
        let result = match (&self.test, value) {
            (HeaderTest::Present(want), value) => value.is_some() == *want,
            // Without a value there is nothing to match, inverted or not.
            (_, None) => return self.invert,
            (HeaderTest::Text(test), Some(value)) => test.matches(value),
            (HeaderTest::Range(start, end), Some(value)) => {
                value.parse::<i64>().is_ok_and(|number| (*start..*end).contains(&number))
            }
        };
        result != self.invert
    }
}

/// One query parameter predicate.
#[derive(Debug, Clone)]
pub struct QueryMatch {
    /// Name of the parameter.
    pub name: String,
    /// `None` asks only whether it is there.
    pub test: Option<StringMatch>,
}

impl QueryMatch {
    /// Whether `query` (with or without `?`) has such a parameter.
    pub fn matches(&self, query: &str) -> bool {
        let pairs = query.trim_start_matches('?').split('&');
        let mut values = pairs
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .filter(|(key, _)| *key == self.name);
        match (&self.test, values.next()) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(test), Some((_, value))) => test.matches(value),
        }
    }
}

/// How a path is selected.
#[derive(Debug, Clone)]
pub enum PathMatch {
    /// Starts with.
    Prefix(String),
    /// Equals, query aside.
    Exact(String),
    /// Equals, or goes on with `/`.
    Separated(String),
    /// A regular expression over the whole path, query aside.
    Regex(Regex),
}

impl PathMatch {
    /// Whether `path` (no query) is selected.
    pub fn matches(&self, path: &str, case_sensitive: bool) -> bool {
        let starts = |prefix: &str| {
            if case_sensitive {
                path.starts_with(prefix)
            } else {
                path.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix))
            }
        };
        match self {
            Self::Prefix(prefix) => starts(prefix),
            Self::Exact(want) if case_sensitive => path == want,
            Self::Exact(want) => path.eq_ignore_ascii_case(want),
            Self::Separated(prefix) => {
                starts(prefix)
                    && (path.len() == prefix.len() || path.as_bytes()[prefix.len()] == b'/')
            }
            Self::Regex(regex) => regex.is_match(path),
        }
    }

    /// The literal part that `prefix_rewrite` replaces.
    pub fn literal(&self) -> Option<&str> {
        match self {
            Self::Prefix(text) | Self::Exact(text) | Self::Separated(text) => Some(text),
            Self::Regex(_) => None,
        }
    }
}

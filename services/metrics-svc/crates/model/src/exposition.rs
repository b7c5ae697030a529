//! Reads what targets expose: text format 0.0.4 and OpenMetrics 1.0.
//!
//! The parser walks lines and hands out the series part as raw text, so that a scrape can look up known series
//! without building labels; [`parse_metric`] builds them. Exemplars are checked and skipped.
//! Limits: a line may have [`MAX_LINE`] bytes; the size of the whole is the caller's concern.

use thiserror::Error;

use crate::number::parse_go_float;
use crate::{Labels, METRIC_NAME};

/// Longest line in bytes.
pub const MAX_LINE: usize = 1 << 20;
/// Most labels of one series.
const MAX_LABELS: usize = 1024;

/// Which grammar applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Text format 0.0.4.
    Text,
    /// OpenMetrics 1.0: ends in `# EOF`, timestamps in seconds.
    OpenMetrics,
}

/// Why a text cannot be read.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("line {line}: {reason}")]
pub struct ExpositionError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong.
    pub reason: String,
}

/// One line with meaning.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry<'a> {
    /// `# HELP name text`
    Help(&'a str, String),
    /// `# TYPE name kind`
    Type(&'a str, &'a str),
    /// `# UNIT name unit`
    Unit(&'a str, &'a str),
    /// A sample.
    Sample {
        /// Name and labels as they stand in the text.
        metric: &'a str,
        /// The value.
        value: f64,
        /// Milliseconds since the epoch, when the target says.
        timestamp: Option<i64>,
    },
}

/// Iterates over the entries of a text.
#[derive(Debug)]
pub struct Parser<'a> {
    text: &'a str,
    format: Format,
    line: usize,
    ended: bool,
}

impl<'a> Parser<'a> {
    /// A parser of `text`.
    pub fn new(text: &'a str, format: Format) -> Self {
        Self { text, format, line: 0, ended: false }
    }

    fn fail(&self, reason: impl Into<String>) -> ExpositionError {
        ExpositionError { line: self.line, reason: reason.into() }
    }

    fn take_line(&mut self) -> Option<&'a str> {
        if self.text.is_empty() {
            return None;
        }
        let (line, rest) = self.text.split_once('\n').unwrap_or((self.text, ""));
        self.text = rest;
        self.line += 1;
        Some(line)
    }

    fn step(&mut self) -> Result<Option<Entry<'a>>, ExpositionError> {
        loop {
            let Some(line) = self.take_line() else {
                return match self.format {
                    Format::OpenMetrics if !self.ended => {
                        Err(self.fail("data does not end with # EOF"))
                    }
                    _ => Ok(None),
                };
            };
            if self.ended {
                return Err(self.fail("unexpected data after # EOF"));
            }
            if line.len() > MAX_LINE {
                return Err(self.fail("line too long"));
            }
            let open = self.format == Format::OpenMetrics;
            let line = if open {
                line
            } else {
                line.trim_start_matches([' ', '\t']).trim_end_matches('\r')
            };
            if line.is_empty() {
                if open {
                    return Err(self.fail("empty line"));
                }
                continue;
            }
            if open && line == "# EOF" {
                self.ended = true;
                continue;
            }
            if let Some(comment) = line.strip_prefix('#') {
                if let Some(entry) = self.comment(comment)? {
                    return Ok(Some(entry));
                }
                continue;
            }
            return self.sample(line).map(Some);
        }
    }

    fn comment(&self, text: &'a str) -> Result<Option<Entry<'a>>, ExpositionError> {
        let open = self.format == Format::OpenMetrics;
        let body = text.trim_start_matches([' ', '\t']);
        let Some((keyword, rest)) = body.split_once([' ', '\t']) else {
            return if open { Err(self.fail("unexpected comment")) } else { Ok(None) };
        };
        let rest = if open { rest } else { rest.trim_start_matches([' ', '\t']) };
        let (name, tail) = rest.split_once([' ', '\t']).unwrap_or((rest, ""));
        let name = name.strip_prefix('"').and_then(|n| n.strip_suffix('"')).unwrap_or(name);
        match keyword {
            "HELP" => Ok(Some(Entry::Help(name, unescape_help(tail)))),
            "TYPE" => {
                let kind = if open { tail } else { tail.trim() };
                let known: &[&str] = if open {
                    &[
                        "counter",
                        "gauge",
                        "histogram",
                        "gaugehistogram",
                        "summary",
                        "info",
                        "stateset",
                        "unknown",
                    ]
                } else {
                    &["counter", "gauge", "histogram", "summary", "untyped", "unknown"]
                };
                if !known.contains(&kind) {
                    return Err(self.fail(format!("invalid metric type {kind:?}")));
                }
                Ok(Some(Entry::Type(name, kind)))
            }
            "UNIT" if open => {
                if !tail.is_empty() && !name.ends_with(&format!("_{tail}")) {
                    return Err(self.fail(format!("unit {tail:?} not a suffix of metric {name:?}")));
                }
                Ok(Some(Entry::Unit(name, tail)))
            }
            _ if open => Err(self.fail(format!("unexpected comment keyword {keyword:?}"))),
            _ => Ok(None),
        }
    }

    fn sample(&self, line: &'a str) -> Result<Entry<'a>, ExpositionError> {
        let end = metric_end(line).map_err(|reason| self.fail(reason))?;
        let (metric, rest) = line.split_at(end);
        let open = self.format == Format::OpenMetrics;
        let rest = if open {
            let rest = rest
                .strip_prefix(' ')
                .ok_or_else(|| self.fail("expected one space before the value"))?;
            rest.split_once(" # ").map_or(Ok(rest), |(sample, exemplar)| {
                self.check_exemplar(exemplar).map(|()| sample)
            })?
        } else {
            rest.trim_matches([' ', '\t'])
        };
        let (value, stamp) = rest.split_once([' ', '\t']).unwrap_or((rest, ""));
        let value =
            parse_go_float(value).ok_or_else(|| self.fail(format!("{value:?} is not a number")))?;
        let value = if value.is_nan() { f64::NAN } else { value };
        let stamp = if open { stamp } else { stamp.trim() };
        let timestamp = if stamp.is_empty() { None } else { Some(self.timestamp(stamp)?) };
        Ok(Entry::Sample { metric: metric.trim_end(), value, timestamp })
    }

    fn timestamp(&self, text: &str) -> Result<i64, ExpositionError> {
        let bad = || self.fail(format!("{text:?} is not a timestamp"));
        if self.format == Format::Text {
            return text.parse().map_err(|_| bad());
        }
        let seconds = parse_go_float(text).filter(|s| s.is_finite()).ok_or_else(bad)?;
        Ok((seconds * 1000.0) as i64)
    }

    fn check_exemplar(&self, text: &str) -> Result<(), ExpositionError> {
        let end = metric_end(text).map_err(|reason| self.fail(reason))?;
        let (labels, rest) = text.split_at(end);
        if !labels.starts_with('{') {
            return Err(self.fail("an exemplar begins with its labels"));
        }
        pairs(labels, |_, _| true).map_err(|reason| self.fail(reason))?;
        let mut fields = rest.trim_start_matches(' ').split(' ');
        let value = fields.next().unwrap_or_default();
        parse_go_float(value).ok_or_else(|| self.fail(format!("{value:?} is not a number")))?;
        if let Some(stamp) = fields.next() {
            self.timestamp(stamp)?;
        }
        if fields.next().is_some() {
            Err(self.fail("unexpected text after the exemplar"))
        } else {
            Ok(())
        }
    }
}

impl<'a> Iterator for Parser<'a> {
    type Item = Result<Entry<'a>, ExpositionError>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.step().transpose();
        if matches!(item, Some(Err(_))) {
            self.text = "";
            self.ended = true;
        }
        item
    }
}

fn unescape_help(text: &str) -> String {
    if text.contains('\\') { unescape(text) } else { text.to_owned() }
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some(c @ ('\\' | '"')) => out.push(c),
            Some(c) => {
                out.push('\\');
                out.push(c);
            }
            None => out.push('\\'),
        }
    }
    out
}

/// Where the name and labels of a sample line end.
fn metric_end(line: &str) -> Result<usize, String> {
    let name = line.find(['{', ' ', '\t']).ok_or("expected a value after the metric")?;
    let after = line[name..].trim_start_matches([' ', '\t']);
    if !after.starts_with('{') {
        return if name == 0 { Err("expected a metric name".to_owned()) } else { Ok(name) };
    }
    let start = line.len() - after.len();
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in line.bytes().enumerate().skip(start) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'}' if !quoted => return Ok(at + 1),
            _ => {}
        }
    }
    Err("label set is not closed".to_owned())
}

/// Calls `visit` with each label between the braces of `text`; a lone quoted text is the metric name.
fn pairs(text: &str, mut visit: impl FnMut(&str, String) -> bool) -> Result<(), String> {
    let blank = [' ', '\t'];
    let mut rest = text.strip_prefix('{').ok_or("expected {")?.trim_start_matches(blank);
    let mut count = 0;
    while let Some(c) = rest.chars().next() {
        if c == '}' {
            return Ok(());
        }
        count += 1;
        if count > MAX_LABELS {
            return Err(format!("more than {MAX_LABELS} labels"));
        }
        let name;
        if c == '"' {
            let (quoted, after) = quoted(rest)?;
            rest = after.trim_start_matches(blank);
            if !rest.starts_with('=') {
                if !visit(METRIC_NAME, quoted) {
                    return Err("metric name given twice".to_owned());
                }
                rest = separator(rest)?;
                continue;
            }
            name = quoted;
        } else {
            let end =
                rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            name = rest[..end].to_owned();
            if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
                return Err(format!(
                    "expected a label name at {:?}",
                    &rest[..rest.len().min(20)].trim()
                ));
            }
            rest = rest[end..].trim_start_matches(blank);
        }
        rest = rest
            .strip_prefix('=')
            .ok_or("expected = after the label name")?
            .trim_start_matches(blank);
        let (value, after) = quoted(rest)?;
        if !visit(&name, value) {
            return Err(format!("label {name:?} given twice"));
        }
        rest = separator(after.trim_start_matches(blank))?;
    }
    Err("label set is not closed".to_owned())
}

fn separator(rest: &str) -> Result<&str, String> {
    match rest.strip_prefix(',') {
        Some(after) => Ok(after.trim_start_matches([' ', '\t'])),
        None if rest.starts_with('}') => Ok(rest),
        None => Err("expected , or } after a label".to_owned()),
    }
}

fn quoted(text: &str) -> Result<(String, &str), String> {
    let body = text.strip_prefix('"').ok_or("expected a quoted value")?;
    let mut escaped = false;
    for (at, byte) in body.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => {
                let raw = &body[..at];
                let value = if raw.contains('\\') { unescape(raw) } else { raw.to_owned() };
                return Ok((value, &body[at + 1..]));
            }
            _ => {}
        }
    }
    Err("quoted value is not closed".to_owned())
}

/// Builds the labels of a series text such as `up{job="x"}` or `{"my.metric",job="x"}`.
///
/// # Errors
/// Says what is wrong with it.
pub fn parse_metric(text: &str) -> Result<Labels, String> {
    let name_end = text.find('{').unwrap_or(text.len());
    let name = text[..name_end].trim();
    let mut list: Vec<(String, String)> = Vec::new();
    if !name.is_empty() {
        if !crate::is_metric_name(name) {
            return Err(format!("invalid metric name {name:?}"));
        }
        list.push((METRIC_NAME.to_owned(), name.to_owned()));
    }
    if name_end < text.len() {
        pairs(&text[name_end..], |name, value| {
            let new = !list.iter().any(|(n, _)| n == name);
            list.push((name.to_owned(), value));
            new
        })?;
    }
    if !list.iter().any(|(name, value)| name == METRIC_NAME && !value.is_empty()) {
        return Err("metric name missing".to_owned());
    }
    Ok(Labels::from_pairs(list))
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};

    use super::*;

    fn samples(text: &str, format: Format) -> Result<Vec<(String, f64, Option<i64>)>, String> {
        Parser::new(text, format)
            .filter_map(|entry| match entry {
                Err(error) => Some(Err(error.to_string())),
                Ok(Entry::Sample { metric, value, timestamp }) => {
                    Some(parse_metric(metric).map(|labels| (labels.to_string(), value, timestamp)))
                }
                Ok(_) => None,
            })
            .collect()
    }

    const TEXT: &str = "# HELP a Total \\n of a\n# TYPE a counter\na 1\n  a{x=\"1\", y = \"q\\\"\\\\\\n\" ,} 2.5e3 1234\n\n# any\nb{} +Inf\nc NaN\r\n{\"d.e\",z=\"1\"} 0x10\n";

    #[test]
    fn text_format_is_read() {
        let out = samples(TEXT, Format::Text).unwrap();
        assert_eq!(out.len(), 5);
        assert_eq!(out[1].0, "{__name__=\"a\", x=\"1\", y=\"q\\\"\\\\\\n\"}");
        assert_eq!((out[1].1, out[1].2), (2500.0, Some(1234)));
        assert_eq!(out[4].0, "{__name__=\"d.e\", z=\"1\"}");
        assert!(out[3].1.is_nan());
    }

    #[test]
    fn openmetrics_is_read() {
        let text = "# TYPE a counter\n# UNIT b_seconds seconds\na_total{x=\"1\"} 2 1.5 # {trace_id=\"x\"} 1 1.5\na_bucket{le=\"1\"} 1 # {} 3\n# EOF\n";
        let out = samples(text, Format::OpenMetrics).unwrap();
        assert_eq!((out[0].1, out[0].2, out.len()), (2.0, Some(1500), 2));
        for bad in [
            "a 1\n",
            "a 1\n# EOF\nb 1\n",
            "a  1\n# EOF\n",
            "\n# EOF\n",
            "# TYPE a foo\n# EOF\n",
            "a 1 # x\n# EOF\n",
        ] {
            assert!(samples(bad, Format::OpenMetrics).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn bad_text_names_the_line() {
        for bad in [
            "a",
            "a{x=1} 2",
            "a{x=\"1\" 2",
            "{} 1",
            "a 1x",
            "a{1=\"x\"} 1",
            "a{x=\"1\",x=\"2\"} 1",
            "1a 2",
            "a 1 x",
            "a{x=\"1\"y=\"2\"} 1",
        ] {
            assert!(
                samples(&format!("ok 1\n{bad}\n"), Format::Text).is_err(),
                "{bad:?} was accepted"
            );
        }
        let error = samples("ok 1\na{ 1\n", Format::Text).unwrap_err();
        assert!(error.starts_with("line 2:"), "{error}");
    }

    #[test]
    fn mutated_text_never_panics() {
        let mut rng = rand::rngs::StdRng::seed_from_u64(7);
        for _ in 0..20_000 {
            let mut bytes = TEXT.as_bytes().to_vec();
            for _ in 0..rng.random_range(1..6) {
                let at = rng.random_range(0..bytes.len());
                match rng.random_range(0..3) {
                    0 => bytes[at] = rng.random(),
                    1 => drop(bytes.remove(at)),
                    _ => bytes.insert(at, b"{}\"\\# \n=,"[rng.random_range(0..9)]),
                }
            }
            let text = String::from_utf8_lossy(&bytes);
            let _ = samples(&text, Format::Text);
            let _ = samples(&text, Format::OpenMetrics);
        }
    }
}

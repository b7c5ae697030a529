//! Lines of container logs: `2024-01-01T00:00:00.000000000Z stdout F text`.

/// Bytes one line may have; runtimes split lines far below this.
pub const MAX_LINE: usize = 256 << 10;

/// A line of a log file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine<'a> {
    /// RFC 3339, as written.
    pub time: &'a str,
    /// `stdout` or `stderr`.
    pub stream: &'a str,
    /// Whether the next line of this stream continues this one.
    pub partial: bool,
    /// The text, without the line end.
    pub text: &'a [u8],
}

impl<'a> LogLine<'a> {
    /// Reads a line without its line end; `None` when it is none.
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let mut parts = line.splitn(4, |b| *b == b' ');
        let time = std::str::from_utf8(parts.next()?).ok()?;
        let stream = std::str::from_utf8(parts.next()?).ok()?;
        let tags = parts.next()?;
        if time.len() < 20
            || !time.as_bytes()[0].is_ascii_digit()
            || !matches!(stream, "stdout" | "stderr")
        {
            return None;
        }
        let partial = match tags.split(|b| *b == b':').next()? {
            b"P" => true,
            b"F" => false,
            _ => return None,
        };
        Some(Self { time, stream, partial, text: parts.next().unwrap_or_default() })
    }
}

/// What of a log is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogFilter {
    /// Lines older than this are left out (nanoseconds since the epoch).
    pub since: Option<i64>,
    /// Prefix each line with its time.
    pub timestamps: bool,
    /// Only `stdout` or only `stderr`.
    pub stream: Option<String>,
    /// Bytes after which the answer ends.
    pub limit: Option<u64>,
}

/// Turns log lines into the answer's bytes, within its limit.
#[derive(Debug)]
pub struct LogWriter {
    filter: LogFilter,
    left: u64,
    mid_line: bool,
}

impl LogWriter {
    /// A writer for one answer.
    pub fn new(filter: LogFilter) -> Self {
        let left = filter.limit.unwrap_or(u64::MAX);
        Self { filter, left, mid_line: false }
    }

    /// Appends what `line` contributes to `out`; `false` once the limit is reached.
    pub fn write(&mut self, line: &[u8], out: &mut Vec<u8>) -> bool {
        let Some(line) = LogLine::parse(line) else { return self.left > 0 };
        let old = || {
            self.filter
                .since
                .is_some_and(|since| super::time::parse(line.time).is_some_and(|time| time < since))
        };
        if self.filter.stream.as_ref().is_some_and(|wanted| wanted != line.stream) || old() {
            return self.left > 0;
        }
        let start = out.len();
        if self.filter.timestamps && !self.mid_line {
            out.extend_from_slice(line.time.as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(line.text);
        if !line.partial {
            out.push(b'\n');
        }
        self.mid_line = line.partial;
        let added = out.len() - start;
        if added as u64 >= self.left {
            out.truncate(start + usize::try_from(self.left).unwrap_or(usize::MAX));
            self.left = 0;
            return false;
        }
        self.left -= added as u64;
        true
    }
}

/// Where the last `lines` whole lines of `data` begin.
pub fn tail_start(data: &[u8], lines: usize) -> usize {
    if lines == 0 {
        return data.len();
    }
    let end = data.len() - usize::from(data.last() == Some(&b'\n'));
    let breaks = data[..end].iter().enumerate().rev().filter(|(_, b)| **b == b'\n');
    breaks.map(|(at, _)| at + 1).nth(lines - 1).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    const LOG: &[&str] = &[
        "2024-01-01T00:00:00.000000000Z stdout F one",
        "2024-01-01T00:00:01.000000000Z stderr P tw",
        "2024-01-01T00:00:01.000000001Z stderr F o",
        "2024-01-01T00:00:02.000000000Z stdout F ",
    ];

    fn read(filter: LogFilter) -> String {
        let mut writer = LogWriter::new(filter);
        let mut out = Vec::new();
        let _all = LOG.iter().all(|line| writer.write(line.as_bytes(), &mut out));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_are_joined_filtered_and_cut() {
        assert_eq!(read(LogFilter::default()), "one\ntwo\n\n");
        assert_eq!(read(LogFilter { limit: Some(6), ..LogFilter::default() }), "one\ntw");
        assert_eq!(
            read(LogFilter { stream: Some("stderr".into()), ..LogFilter::default() }),
            "two\n"
        );
        let since = super::super::time::parse("2024-01-01T00:00:02Z");
        assert_eq!(read(LogFilter { since, ..LogFilter::default() }), "\n");
        let stamped = read(LogFilter { timestamps: true, ..LogFilter::default() });
        assert!(stamped.starts_with(
            "2024-01-01T00:00:00.000000000Z one\n2024-01-01T00:00:01.000000000Z two\n"
        ));
    }

    #[test]
    fn tail_counts_whole_lines() {
        let data = b"a\nb\nc\n";
        assert_eq!([0, 1, 2, 3, 9].map(|n| tail_start(data, n)), [6, 4, 2, 0, 0]);
        assert_eq!(tail_start(b"a\nb", 1), 2);
        assert_eq!(tail_start(b"", 1), 0);
    }

    #[test]
    fn damaged_lines_do_no_harm() {
        let mut random = StdRng::seed_from_u64(7);
        for _ in 0..20_000 {
            let mut line = LOG[random.random_range(0..LOG.len())].as_bytes().to_vec();
            for _ in 0..random.random_range(0..4) {
                let at = random.random_range(0..line.len());
                match random.random_range(0..3) {
                    0 => line[at] = random.random(),
                    1 => line.truncate(at.max(1)),
                    _ => line.insert(at, random.random()),
                }
            }
            let mut writer = LogWriter::new(LogFilter {
                limit: Some(8),
                timestamps: true,
                since: Some(1),
                stream: None,
            });
            let mut out = Vec::new();
            writer.write(&line, &mut out);
            assert!(out.len() <= 8);
        }
    }
}

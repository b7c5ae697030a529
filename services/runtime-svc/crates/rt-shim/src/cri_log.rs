//! The container log as kubelet reads it: `TIMESTAMP STREAM TAG TEXT`, one line a record.
//!
//! A record is written with one call, so reopening the file between two calls never splits one. Lines longer than
//! [`MAX_LINE`] are cut into records tagged `P`; the last piece of a line is tagged `F`.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;

/// Bytes of text in one record.
pub(crate) const MAX_LINE: usize = 16_384;

/// Which output a record came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    Stdout,
    Stderr,
}

/// An open log. Without a path everything written is dropped.
#[derive(Debug)]
pub(crate) struct CriLog {
    path: Option<PathBuf>,
    file: Option<File>,
    /// Text of each output that no line end has followed yet.
    pending: [Vec<u8>; 2],
}

impl CriLog {
    /// Opens the log for appending; its folder is made.
    pub(crate) fn open(path: Option<PathBuf>) -> io::Result<Self> {
        let file = path.as_ref().map(open_file).transpose()?;
        Ok(Self { path, file, pending: [Vec::new(), Vec::new()] })
    }

    /// Opens the path anew, after someone renamed the file away.
    pub(crate) fn reopen(&mut self) -> io::Result<()> {
        if let Some(path) = &self.path {
            self.file = Some(open_file(path)?);
        }
        Ok(())
    }

    /// Takes output and writes the records it completes.
    pub(crate) fn write(&mut self, output: Output, mut text: &[u8]) {
        if self.file.is_none() {
            return;
        }
        let (now, mut records) = (timestamp(), Vec::with_capacity(text.len() + 128));
        let pending = &mut self.pending[output as usize];
        while !text.is_empty() {
            let room = MAX_LINE - pending.len();
            let reach = &text[..text.len().min(room + 1)];
            if let Some(end) = reach.iter().position(|byte| *byte == b'\n') {
                pending.extend_from_slice(&text[..end]);
                text = &text[end + 1..];
                record(&mut records, &now, output, b'F', pending);
            } else if text.len() > room {
                pending.extend_from_slice(&text[..room]);
                text = &text[room..];
                record(&mut records, &now, output, b'P', pending);
            } else {
                pending.extend_from_slice(text);
                text = &[];
            }
        }
        self.put(&records);
    }

    /// Writes what is left of a last line without an end.
    pub(crate) fn finish(&mut self, output: Output) {
        let mut records = Vec::new();
        let pending = &mut self.pending[output as usize];
        if !pending.is_empty() {
            record(&mut records, &timestamp(), output, b'F', pending);
            self.put(&records);
        }
    }

    fn put(&mut self, records: &[u8]) {
        if let Some(file) = &mut self.file {
            // A full disk must not stop the container; the records are lost.
            let _ = file.write_all(records);
        }
    }
}

fn open_file(path: &PathBuf) -> io::Result<File> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    File::options().append(true).create(true).open(path)
}

fn record(records: &mut Vec<u8>, now: &str, output: Output, tag: u8, text: &mut Vec<u8>) {
    let name: &[u8] = if output == Output::Stdout { b" stdout " } else { b" stderr " };
    records.extend_from_slice(now.as_bytes());
    records.extend_from_slice(name);
    records.extend_from_slice(&[tag, b' ']);
    records.append(text);
    records.push(b'\n');
}

/// Now, in RFC 3339 with nanoseconds.
fn timestamp() -> String {
    format!("{:.9}", jiff::Timestamp::now())
}

/// Nanoseconds since the epoch.
pub(crate) fn now_nanos() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(log: &std::path::Path) -> Vec<(String, usize)> {
        let text = fs::read_to_string(log).unwrap();
        let lines = text.lines().map(|line| {
            let (_, rest) = line.split_once(' ').unwrap();
            (rest[..8].to_owned(), rest.len() - 9)
        });
        lines.collect()
    }

    #[test]
    fn long_lines_are_cut_and_outputs_kept_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/0.log");
        let mut log = CriLog::open(Some(path.clone())).unwrap();
        log.write(Output::Stdout, b"one\ntw");
        log.write(Output::Stderr, b"err\n");
        log.write(Output::Stdout, b"o\n");
        log.write(Output::Stdout, &[b'x'; MAX_LINE]);
        log.write(Output::Stdout, b"\n");
        log.write(Output::Stdout, &[b'y'; 2 * MAX_LINE + 1]);
        log.finish(Output::Stdout);
        let want = [
            ("stdout F", 3),
            ("stderr F", 3),
            ("stdout F", 3),
            ("stdout F", MAX_LINE),
            ("stdout P", MAX_LINE),
            ("stdout P", MAX_LINE),
            ("stdout F", 1),
        ];
        let want: Vec<(String, usize)> =
            want.iter().map(|(tag, len)| ((*tag).to_owned(), *len)).collect();
        assert_eq!(lines(&path), want);
    }

    #[test]
    fn reopening_starts_a_new_file() {
        let dir = tempfile::tempdir().unwrap();
        let (path, old) = (dir.path().join("0.log"), dir.path().join("0.log.1"));
        let mut log = CriLog::open(Some(path.clone())).unwrap();
        log.write(Output::Stdout, b"before\n");
        fs::rename(&path, &old).unwrap();
        log.reopen().unwrap();
        log.write(Output::Stdout, b"after\n");
        assert_eq!((lines(&old).len(), lines(&path).len()), (1, 1));
    }

    #[test]
    fn timestamps_have_nanoseconds() {
        let now = timestamp();
        assert!(now.len() == "2026-01-01T00:00:00.000000000Z".len() && now.ends_with('Z'), "{now}");
    }
}

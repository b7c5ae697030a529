//! Reading the log back.

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use thiserror::Error;

use crate::store::wal::frame::{self, Found};
use crate::store::wal::record::{LogEntry, LogPlace, Record, Vote};
use crate::store::wal::segment::{self, PREFIX, Prefix};

/// Why a log cannot be used.
#[derive(Debug, Error)]
pub enum WalError {
    /// The system failed.
    #[error("cannot {action} the log in {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// File or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The content was changed after it was written.
    #[error(
        "the log {path} is damaged at byte {offset}: {reason}; acknowledged writes may be lost. Restore the \
         data folder from a snapshot or let the member join anew"
    )]
    Damaged {
        /// Segment.
        path: PathBuf,
        /// Where.
        offset: usize,
        /// What is wrong.
        reason: &'static str,
    },
}

/// What a log holds.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Last vote.
    pub vote: Option<Vote>,
    /// Last purged entry.
    pub purged: Option<LogPlace>,
    /// Newest entry known to be committed.
    pub committed: Option<LogPlace>,
    /// Entries after the last purged one, without gaps.
    pub entries: VecDeque<LogEntry>,
    /// Number of the next frame.
    pub next_frame: u64,
    /// Number of a frame that was cut off, if one was torn.
    pub torn: Option<u64>,
    /// The last segment: number of its first frame, seed, size, where to write on. `None`: there is none.
    pub active: Option<(u64, u32, u64, u64)>,
    /// Last entry number of each closed segment by the number of its first frame.
    pub closed: VecDeque<(u64, u64)>,
}

impl Recovered {
    fn take(&mut self, record: Record) {
        match record {
            Record::Entry(entry) => {
                self.truncate(entry.place.index);
                if self.purged.is_none_or(|purged| entry.place.index > purged.index) {
                    self.entries.push_back(entry);
                }
            }
            Record::Vote(vote) => self.vote = Some(vote),
            Record::Truncate(from) => self.truncate(from),
            Record::Purge(place) => {
                self.purged = self.purged.max(Some(place));
                while self.entries.front().is_some_and(|entry| entry.place.index <= place.index) {
                    self.entries.pop_front();
                }
            }
            Record::Committed(place) => self.committed = self.committed.max(Some(place)),
        }
    }

    fn truncate(&mut self, from: u64) {
        while self.entries.back().is_some_and(|entry| entry.place.index >= from) {
            self.entries.pop_back();
        }
    }

    fn last_index(&self) -> u64 {
        let purged = self.purged.map_or(0, |place| place.index);
        self.entries.back().map_or(purged, |entry| entry.place.index)
    }
}

/// Reads every segment of a folder and cuts off a torn last frame. A missing or empty folder is an empty log.
///
/// # Errors
/// When a file cannot be read, or holds what no crash explains.
pub fn recover(dir: &Path) -> Result<Recovered, WalError> {
    let fail = |action, path: &Path| {
        let path = path.to_owned();
        move |source| WalError::Io { action, path, source }
    };
    std::fs::create_dir_all(dir).map_err(fail("create", dir))?;
    let segments = segment::list(dir).map_err(fail("list", dir))?;
    let mut log = Recovered::default();
    let last = segments.len().saturating_sub(1);
    for (n, (first, path)) in segments.iter().enumerate() {
        let bytes = std::fs::read(path).map_err(fail("read", path))?;
        let damaged = |offset, reason| WalError::Damaged { path: path.clone(), offset, reason };
        let prefix =
            Prefix::decode(&bytes).ok_or_else(|| damaged(0, "its first bytes are no prefix"))?;
        if prefix.first != *first || (n > 0 && *first != log.next_frame) {
            return Err(damaged(0, "frames before it are missing"));
        }
        log.next_frame = *first;
        let mut at = PREFIX;
        loop {
            match frame::read(&bytes, at, prefix.seed) {
                Found::Frame { number, content, next } if number == log.next_frame => {
                    let records = Record::decode_all(Bytes::copy_from_slice(content))
                        .ok_or_else(|| damaged(at, "a frame holds no records"))?;
                    records.into_iter().for_each(|record| log.take(record));
                    log.next_frame += 1;
                    at = next;
                }
                Found::Frame { .. } => return Err(damaged(at, "a frame has the wrong number")),
                Found::End => break,
                Found::Torn if n == last => {
                    cut(path, at, bytes.len()).map_err(fail("cut the torn end of", path))?;
                    log.torn = Some(log.next_frame);
                    break;
                }
                Found::Torn => return Err(damaged(at, "a frame in the middle is cut short")),
                Found::Damaged => return Err(damaged(at, "a checksum is wrong")),
            }
        }
        if n == last {
            log.active = Some((*first, prefix.seed, bytes.len() as u64, at as u64));
        } else {
            let last_index = log.last_index();
            log.closed.push_back((*first, last_index));
        }
    }
    check_gaps(dir, &log)?;
    Ok(log)
}

fn check_gaps(dir: &Path, log: &Recovered) -> Result<(), WalError> {
    let start = log.purged.map(|purged| purged.index + 1);
    let first = start.or_else(|| log.entries.front().map(|entry| entry.place.index)).unwrap_or(0);
    for (expected, entry) in (first..).zip(&log.entries) {
        if entry.place.index != expected {
            let reason = "entries are missing between two others";
            return Err(WalError::Damaged { path: dir.to_owned(), offset: 0, reason });
        }
    }
    Ok(())
}

fn cut(path: &Path, from: usize, to: usize) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    let zeros = vec![0; 64 << 10];
    let mut at = from;
    while at < to {
        let n = zeros.len().min(to - at);
        file.write_all_at(&zeros[..n], at as u64)?;
        at += n;
    }
    file.sync_data()
}

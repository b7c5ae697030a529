//! The thread that writes the log.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::store::wal::frame::{self, HEADER};
use crate::store::wal::record::{LogPlace, Record, Vote};
use crate::store::wal::recover::Recovered;
use crate::store::wal::segment::{self, PREFIX, Prefix};

/// Bytes of records that go into one frame at most; a single record may be larger.
const FRAME: usize = 8 << 20;

type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

struct Job {
    records: Vec<Record>,
    done: Done,
}

/// Hands records to the writing thread.
#[derive(Clone)]
pub struct Wal {
    jobs: Sender<Job>,
}

impl std::fmt::Debug for Wal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wal").finish_non_exhaustive()
    }
}

impl Wal {
    /// Queues records; `done` is called when they are durable, or cannot become so.
    pub fn append(&self, records: Vec<Record>, done: impl FnOnce(io::Result<()>) + Send + 'static) {
        if let Err(unsent) = self.jobs.send(Job { records, done: Box::new(done) }) {
            (unsent.0.done)(Err(io::Error::other("the log is closed")));
        }
    }
}

/// Writes groups of records. After an error it writes nothing more.
#[derive(Debug)]
pub struct WalWriter {
    dir: PathBuf,
    sync: bool,
    file: File,
    first: u64,
    seed: u32,
    size: u64,
    at: u64,
    next_frame: u64,
    closed: VecDeque<(u64, u64)>,
    vote: Option<Vote>,
    purged: Option<LogPlace>,
    last_index: u64,
    broken: bool,
}

impl WalWriter {
    /// Goes on where a recovered log ends. Without `sync` a crash of the machine loses acknowledged writes.
    ///
    /// # Errors
    /// When the last segment cannot be opened or a first one cannot be created.
    pub fn open(dir: &Path, log: &Recovered, sync: bool) -> io::Result<Self> {
        let (first, seed, file, size, at) = match log.active {
            Some((first, seed, size, at)) => {
                let file =
                    OpenOptions::new().read(true).write(true).open(segment::path(dir, first))?;
                (first, seed, file, size, at)
            }
            None => {
                let prefix = Prefix { seed: rand::random(), first: log.next_frame };
                let (file, size) = segment::create(dir, prefix, 0)?;
                (prefix.first, prefix.seed, file, size, PREFIX as u64)
            }
        };
        let purged_index = log.purged.map_or(0, |place| place.index);
        Ok(Self {
            dir: dir.to_owned(),
            sync,
            file,
            first,
            seed,
            size,
            at,
            next_frame: log.next_frame,
            closed: log.closed.clone(),
            vote: log.vote,
            purged: log.purged,
            last_index: log.entries.back().map_or(purged_index, |entry| entry.place.index),
            broken: false,
        })
    }

    /// Moves the writer to a thread of its own, which ends when every [`Wal`] is dropped.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn spawn(mut self) -> io::Result<Wal> {
        let (jobs, queue) = channel();
        std::thread::Builder::new().name("wal".to_owned()).spawn(move || self.run(&queue))?;
        Ok(Wal { jobs })
    }

    fn run(&mut self, queue: &Receiver<Job>) {
        let mut waiting: Option<Job> = None;
        loop {
            let Some(first) = waiting.take().or_else(|| queue.recv().ok()) else { return };
            let mut group = vec![first];
            let mut bytes: usize = group[0].records.iter().map(estimate).sum();
            while let Ok(job) = queue.try_recv() {
                bytes += job.records.iter().map(estimate).sum::<usize>();
                if bytes > FRAME {
                    waiting = Some(job);
                    break;
                }
                group.push(job);
            }
            let records: Vec<&Record> = group.iter().flat_map(|job| &job.records).collect();
            let result = self.write(&records);
            for job in group {
                (job.done)(
                    result
                        .as_ref()
                        .copied()
                        .map_err(|error| io::Error::new(error.kind(), error.to_string())),
                );
            }
        }
    }

    /// Writes records as one frame and waits until it is durable.
    ///
    /// # Errors
    /// When the disk fails. A failed write is never repeated: what the disk holds then is unknown.
    pub fn write(&mut self, records: &[&Record]) -> io::Result<()> {
        if self.broken {
            return Err(io::Error::other("the log failed before"));
        }
        let result = self.try_write(records);
        self.broken = result.is_err();
        result
    }

    fn try_write(&mut self, records: &[&Record]) -> io::Result<()> {
        let mut buffer = vec![0; HEADER];
        for record in records {
            record.encode(&mut buffer);
            self.note(record);
        }
        if self.at + frame::size(buffer.len() - HEADER) as u64 > self.size {
            self.roll(buffer.len())?;
        }
        self.put(buffer)?;
        self.drop_purged()
    }

    fn note(&mut self, record: &Record) {
        match record {
            Record::Entry(entry) => self.last_index = entry.place.index,
            Record::Vote(vote) => self.vote = Some(*vote),
            Record::Truncate(from) => self.last_index = from.saturating_sub(1),
            Record::Purge(place) => self.purged = self.purged.max(Some(*place)),
            Record::Committed(_) => {}
        }
    }

    fn put(&mut self, mut buffer: Vec<u8>) -> io::Result<()> {
        frame::seal(&mut buffer, self.seed, self.next_frame);
        self.file.write_all_at(&buffer, self.at)?;
        if self.sync {
            rustix::fs::fdatasync(&self.file)?;
        }
        self.at += buffer.len() as u64;
        self.next_frame += 1;
        Ok(())
    }

    /// Starts a segment. Its first frame repeats vote and purge mark, so that older segments can go.
    fn roll(&mut self, needed: usize) -> io::Result<()> {
        let mut head = vec![0; HEADER];
        let marks = self.vote.map(Record::Vote).into_iter().chain(self.purged.map(Record::Purge));
        marks.for_each(|record| record.encode(&mut head));
        let prefix = Prefix { seed: rand::random(), first: self.next_frame };
        let (file, size) =
            segment::create(&self.dir, prefix, frame::size(head.len()) + frame::size(needed))?;
        self.closed.push_back((self.first, self.last_index));
        (self.file, self.first, self.seed) = (file, prefix.first, prefix.seed);
        (self.size, self.at) = (size, PREFIX as u64);
        self.put(head)
    }

    fn drop_purged(&mut self) -> io::Result<()> {
        let Some(purged) = self.purged else { return Ok(()) };
        let mut dropped = false;
        while let Some((first, _)) = self.closed.front().filter(|(_, last)| *last <= purged.index) {
            std::fs::remove_file(segment::path(&self.dir, *first))?;
            self.closed.pop_front();
            dropped = true;
        }
        if dropped { segment::sync_dir(&self.dir) } else { Ok(()) }
    }
}

fn estimate(record: &Record) -> usize {
    use crate::store::wal::record::Payload;
    match record {
        Record::Entry(entry) => match &entry.payload {
            Payload::Blank => 32,
            Payload::Request(data) | Payload::Membership(data) => 32 + data.len(),
        },
        _ => 32,
    }
}

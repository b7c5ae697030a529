//! Where log lines go. Writing never delays a request: lines queue, and are dropped and counted when the queue is full.

use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::{Entry, LogFormat};
use crate::stats::Registry;

/// Lines that may wait per destination.
const QUEUE: usize = 16_384;

/// One access log of a listener.
#[derive(Debug, Clone)]
pub struct AccessLog {
    /// The format.
    pub format: LogFormat,
    lines: mpsc::Sender<Message>,
    stats: Arc<Registry>,
}

#[derive(Debug)]
enum Message {
    Line(String),
    Reopen,
}

impl AccessLog {
    /// Writes a line for `entry`.
    pub fn log(&self, entry: &Entry<'_>) {
        match self.lines.try_send(Message::Line(self.format.line(entry))) {
            Ok(()) => self.stats.logs.write_buffered.inc(),
            Err(_) => self.stats.logs.write_failed.inc(),
        }
    }
}

/// The destinations in use, one writer thread each.
#[derive(Debug)]
pub struct Sinks {
    open: Mutex<HashMap<String, mpsc::Sender<Message>>>,
    stats: Arc<Registry>,
}

impl Sinks {
    /// None yet.
    pub fn new(stats: Arc<Registry>) -> Self {
        Self { open: Mutex::default(), stats }
    }

    /// A log that writes to `path` (`/dev/stdout` and `/dev/stderr` included).
    ///
    /// # Errors
    /// When the file cannot be opened for appending.
    pub fn log(&self, path: &str, format: LogFormat) -> std::io::Result<AccessLog> {
        let mut open = self.open.lock();
        let lines = match open.get(path) {
            Some(lines) => lines.clone(),
            None => {
                let target = target(path)?;
                let (sender, receiver) = mpsc::channel(QUEUE);
                let (stats, name) = (self.stats.clone(), path.to_owned());
                std::thread::Builder::new()
                    .name("access-log".to_owned())
                    .spawn(move || write_lines(target, &name, receiver, &stats))?;
                open.insert(path.to_owned(), sender.clone());
                sender
            }
        };
        Ok(AccessLog { format, lines, stats: self.stats.clone() })
    }

    /// Opens the files anew, after they were moved away.
    pub fn reopen(&self) {
        for lines in self.open.lock().values() {
            // A full queue reopens at the next request for it.
            let _ = lines.try_send(Message::Reopen);
        }
    }
}

fn target(path: &str) -> std::io::Result<Box<dyn Write + Send>> {
    Ok(match path {
        "/dev/stdout" => Box::new(std::io::stdout()),
        "/dev/stderr" => Box::new(std::io::stderr()),
        path => Box::new(std::fs::OpenOptions::new().create(true).append(true).open(path)?),
    })
}

fn write_lines(
    mut target: Box<dyn Write + Send>,
    path: &str,
    mut lines: mpsc::Receiver<Message>,
    stats: &Registry,
) {
    let mut batch = Vec::new();
    while let Some(first) = lines.blocking_recv() {
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Line(line) => batch.extend_from_slice(line.as_bytes()),
                Message::Reopen => match self::target(path) {
                    Ok(fresh) => target = fresh,
                    Err(_) => stats.logs.reopen_failed.inc(),
                },
            }
            next = if batch.len() < 64 << 10 { lines.try_recv().ok() } else { None };
        }
        match target.write_all(&batch).and_then(|()| target.flush()) {
            Ok(()) => stats.logs.write_completed.inc(),
            Err(_) => stats.logs.write_failed.inc(),
        }
        batch.clear();
    }
}

//! What a container wrote about its end.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use crate::engine::log_line::{LogFilter, LogWriter, tail_start};

const MAX_MESSAGE: u64 = 4096;
const MAX_LOG: u64 = 2048;
const MAX_LINES: usize = 80;

/// Reads the termination message; from the end of the log when the file is empty and `log` is given.
pub fn read(file: &Path, log: Option<&Path>) -> String {
    let mut text = Vec::new();
    // Without a file there are no last words.
    let _ = File::open(file).and_then(|file| file.take(MAX_MESSAGE).read_to_end(&mut text));
    if text.is_empty() {
        text = log.map(end_of_log).unwrap_or_default();
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn end_of_log(path: &Path) -> Vec<u8> {
    let mut data = Vec::new();
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let start = file.metadata()?.len().saturating_sub(4 * MAX_LOG);
        file.seek(SeekFrom::Start(start))?;
        let mut data = Vec::new();
        file.take(4 * MAX_LOG).read_to_end(&mut data)?;
        Ok(data)
    };
    if let Ok(read) = read() {
        data = read;
    }
    let mut writer = LogWriter::new(LogFilter::default());
    let mut out = Vec::new();
    for line in data[tail_start(&data, MAX_LINES)..].split(|b| *b == b'\n') {
        writer.write(line, &mut out);
    }
    let cut = out.len().saturating_sub(usize::try_from(MAX_LOG).unwrap_or(usize::MAX));
    out.split_off(cut)
}

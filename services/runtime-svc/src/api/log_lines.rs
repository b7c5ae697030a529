//! Container logs read back, line by line.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use flotilla_proto::engine::flotilla::engine::v1::LogLine;
use futures::Stream;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::engine::node::Container;
use crate::engine::records::ContainerPhase;

/// How often a followed log is looked at.
const POLL: Duration = Duration::from_millis(100);

/// The log's lines, the last `tail` of what there is first; then, if asked for, new ones until the container ends.
pub(super) fn follow(
    container: Arc<Container>,
    follow: bool,
    tail: Option<u32>,
) -> impl Stream<Item = Result<LogLine, Status>> + Send {
    let (lines, stream) = mpsc::channel(64);
    tokio::spawn(async move {
        if let Err(error) = send(&container, follow, tail, &lines).await {
            let _ = lines.send(Err(Status::unknown(format!("read the log: {error}")))).await;
        }
    });
    ReceiverStream::new(stream)
}

async fn send(
    container: &Container,
    follow: bool,
    tail: Option<u32>,
    lines: &mpsc::Sender<Result<LogLine, Status>>,
) -> std::io::Result<()> {
    let path = container.record().log_path;
    let ended = || !matches!(container.phase(), ContainerPhase::Running | ContainerPhase::Starting);
    let file = match tokio::fs::File::open(&path).await {
        // Never started.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let mut reader = BufReader::new(file);
    let (mut kept, mut caught_up) = (VecDeque::new(), false);
    let mut record = Vec::new();
    loop {
        // Asked before reading, so that what comes last is not missed.
        let last = !follow || ended();
        reader.read_until(b'\n', &mut record).await?;
        if record.last() == Some(&b'\n') {
            let line = parse(&record);
            record.clear();
            let Some(line) = line else { continue };
            if caught_up || tail.is_none() {
                if lines.send(Ok(line)).await.is_err() {
                    return Ok(());
                }
                continue;
            }
            kept.push_back(line);
            if kept.len() > tail.unwrap_or(0) as usize {
                kept.pop_front();
            }
            continue;
        }
        caught_up = true;
        for line in kept.drain(..) {
            if lines.send(Ok(line)).await.is_err() {
                return Ok(());
            }
        }
        if last || lines.is_closed() {
            return Ok(());
        }
        tokio::time::sleep(POLL).await;
    }
}

/// `TIME STREAM TAG TEXT\n`
fn parse(record: &[u8]) -> Option<LogLine> {
    let mut parts = record.strip_suffix(b"\n")?.splitn(4, |byte| *byte == b' ');
    let mut word = || parts.next().and_then(|part| std::str::from_utf8(part).ok());
    let (time, stream, tag) = (word()?.to_owned(), word()?.to_owned(), word()?.to_owned());
    let text = parts.next().unwrap_or_default().to_vec();
    Some(LogLine { stream, time, text: text.into(), partial: tag == "P" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_taken_apart() {
        let line = parse(b"2026-01-01T00:00:00.000000001Z stderr P a b\n").unwrap();
        assert_eq!(
            (line.stream.as_str(), line.text.as_ref(), line.partial),
            ("stderr", b"a b".as_slice(), true)
        );
        assert!(
            parse(b"x y").is_none()
                && parse(b"\n").is_none()
                && parse(b"\xff \xff F x\n").is_none()
        );
    }
}

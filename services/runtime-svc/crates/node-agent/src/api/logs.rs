//! `/containerLogs`: the log of one run, whole, from its end, or as it grows.

use std::io::SeekFrom;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::Failure;
use super::query::Params;
use crate::engine::kube::Pod;
use crate::engine::log_line::{LogFilter, LogWriter, MAX_LINE, tail_start};
use crate::engine::observed::{Run, RunState};
use crate::engine::time;
use crate::sync::agent::Agent;

const CHUNK: usize = 64 << 10;
const POLL: Duration = Duration::from_millis(100);

/// `GET /containerLogs/{namespace}/{pod}/{container}`.
pub async fn container_logs(
    State(agent): State<Arc<Agent>>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let bad = |text: String| Failure(StatusCode::UNPROCESSABLE_ENTITY, text);
    let params = Params::parse(query.as_deref());
    let Some(found) = agent.find_pod(&namespace, &pod) else {
        return Err(Failure(StatusCode::NOT_FOUND, format!("pod {pod:?} does not exist")));
    };
    let run = run(&agent, &found, &container, params.flag(&["previous"])).await?;
    let seconds = params.number("sinceSeconds").map_err(bad)?;
    let since = seconds.map(|seconds| {
        time::now() - i64::try_from(seconds).unwrap_or(0).saturating_mul(1_000_000_000)
    });
    let since_time = params.get("sinceTime").filter(|text| !text.is_empty());
    let since_time = since_time
        .map(|text| time::parse(text).ok_or_else(|| bad(format!("invalid sinceTime: {text:?}"))))
        .transpose()?;
    let stream = match params.get("stream") {
        Some("Stdout") => Some("stdout".to_owned()),
        Some("Stderr") => Some("stderr".to_owned()),
        _ => None,
    };
    let limit = params.number("limitBytes").map_err(bad)?;
    let filter = LogFilter {
        since: since.or(since_time),
        timestamps: params.flag(&["timestamps"]),
        stream,
        limit,
    };
    let tail = params
        .number("tailLines")
        .map_err(bad)?
        .map(|lines| usize::try_from(lines).unwrap_or(usize::MAX));
    let path = PathBuf::from(&run.log_path);
    let file = File::open(&path).await.map_err(|error| {
        Failure(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("failed to open log file {:?}: {error}", run.log_path),
        )
    })?;
    let follow = params.flag(&["follow"]) && run.state == RunState::Running;
    let follow = follow.then(|| (agent.clone(), found.uid().to_owned(), run.id.clone()));
    let (sender, receiver) = mpsc::channel(4);
    let reader =
        Reader { file, path, writer: LogWriter::new(filter), sender, follow, buffer: Vec::new() };
    tokio::spawn(async move {
        if let Err(error) = reader.run(tail).await {
            tracing::debug!(%error, "log reading ended early");
        }
    });
    Ok(([(header::CONTENT_TYPE, "text/plain")], Body::from_stream(ReceiverStream::new(receiver)))
        .into_response())
}

async fn run(agent: &Agent, pod: &Pod, container: &str, previous: bool) -> Result<Run, Failure> {
    let bad = |text: String| Failure(StatusCode::BAD_REQUEST, text);
    let name = &pod.metadata.name;
    if pod.container(container).is_none() {
        return Err(Failure(
            StatusCode::NOT_FOUND,
            format!("container {container:?} not found in pod {name:?}"),
        ));
    }
    let seen = agent.cri.observe(pod.uid()).await.map_err(|status| Failure::of_runtime(&status))?;
    let mut runs = seen.runs.into_iter().filter(|run| run.name == container);
    if previous {
        let found = runs.filter(|run| run.state == RunState::Exited);
        let current_ended = pod
            .status
            .container(container)
            .is_some_and(|s| s.last_state.terminated.is_some() && s.state.waiting.is_some());
        let mut found = found;
        // While a container waits for its next run, the ended run is the previous one.
        let wanted = if current_ended {
            found.next()
        } else {
            found.find(|run| Some(run.attempt) < latest_attempt(pod, container))
        };
        return wanted.ok_or_else(|| {
            bad(format!("previous terminated container {container:?} in pod {name:?} not found"))
        });
    }
    let reason = pod
        .status
        .container(container)
        .and_then(|s| s.state.waiting.as_ref())
        .map(|w| w.reason.clone())
        .unwrap_or_default();
    runs.find(|run| run.state != RunState::Created).ok_or_else(|| {
        bad(format!("container {container:?} in pod {name:?} is waiting to start: {reason}"))
    })
}

fn latest_attempt(pod: &Pod, container: &str) -> Option<u32> {
    pod.status.container(container).and_then(|status| u32::try_from(status.restart_count).ok())
}

struct Reader {
    file: File,
    path: PathBuf,
    writer: LogWriter,
    sender: mpsc::Sender<std::io::Result<Bytes>>,
    follow: Option<(Arc<Agent>, String, String)>,
    buffer: Vec<u8>,
}

impl Reader {
    async fn run(mut self, tail: Option<usize>) -> std::io::Result<()> {
        if let Some(lines) = tail {
            let start = tail_offset(&mut self.file, lines).await?;
            self.file.seek(SeekFrom::Start(start)).await?;
        }
        loop {
            // Asked before reading, so that what was written before the end is read after it.
            let ended = !self.is_running();
            if !self.drain().await? {
                return Ok(());
            }
            if self.rotated().await {
                let fresh = File::open(&self.path).await?;
                if !self.drain().await? {
                    return Ok(());
                }
                self.file = fresh;
                continue;
            }
            if ended {
                return Ok(());
            }
            tokio::select! {
                () = tokio::time::sleep(POLL) => {}
                () = self.sender.closed() => return Ok(()),
            }
        }
    }

    /// Reads up to the end of the file; `false` when the answer is complete or nobody wants it.
    async fn drain(&mut self) -> std::io::Result<bool> {
        let mut chunk = vec![0; CHUNK];
        loop {
            let count = self.file.read(&mut chunk).await?;
            if count == 0 {
                return Ok(true);
            }
            self.buffer.extend_from_slice(&chunk[..count]);
            let mut out = Vec::new();
            let mut more = true;
            let mut start = 0;
            while let (true, Some(end)) =
                (more, self.buffer[start..].iter().position(|b| *b == b'\n'))
            {
                more = self.writer.write(&self.buffer[start..start + end], &mut out);
                start += end + 1;
            }
            self.buffer.drain(..start);
            if self.buffer.len() > MAX_LINE {
                // No runtime writes such a line; what follows the next line end is read again.
                self.buffer.clear();
            }
            if !out.is_empty() && self.sender.send(Ok(out.into())).await.is_err() {
                return Ok(false);
            }
            if !more {
                return Ok(false);
            }
        }
    }

    async fn rotated(&self) -> bool {
        if self.follow.is_none() {
            return false;
        }
        let (open, named) = (self.file.metadata().await, tokio::fs::metadata(&self.path).await);
        matches!((open, named), (Ok(open), Ok(named)) if open.ino() != named.ino())
    }

    fn is_running(&self) -> bool {
        let Some((agent, uid, id)) = &self.follow else { return false };
        let pods = agent.pods.read();
        let Some(pod) = pods.get(uid) else { return false };
        let status = &pod.status;
        let mut all = status
            .container_statuses
            .iter()
            .chain(&status.init_container_statuses)
            .chain(&status.ephemeral_container_statuses);
        // A status may lag behind a container that just started.
        !all.any(|s| {
            s.container_id.ends_with(id.as_str()) && s.state.terminated.is_some()
                || s.last_state
                    .terminated
                    .as_ref()
                    .is_some_and(|t| t.container_id.ends_with(id.as_str()))
        })
    }
}

/// Where the last `lines` lines begin, searched from the end so that a large log costs no more than its tail.
async fn tail_offset(file: &mut File, lines: usize) -> std::io::Result<u64> {
    let size = file.metadata().await?.len();
    let mut window = CHUNK as u64;
    loop {
        let start = size.saturating_sub(window);
        file.seek(SeekFrom::Start(start)).await?;
        let mut data = Vec::new();
        (&mut *file).take(size - start).read_to_end(&mut data).await?;
        let at = tail_start(&data, lines);
        if at > 0 || start == 0 {
            return Ok(start + at as u64);
        }
        window = window.saturating_mul(4);
    }
}

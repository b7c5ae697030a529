//! ExecSync: a process whose output is collected.

use std::time::Duration;

use flotilla_proto::cri::runtime::v1 as cri;
use rt_shim::wire::{Answer, Kind, read_frame};
use tokio::net::UnixStream;

use crate::engine::error::{Error, Result};
use crate::engine::node::Node;

/// Bytes kept of each output; the rest is read and dropped, so that the process does not block.
const MAX_OUTPUT: usize = 16 << 20;

/// Runs a process to its end. A zero timeout means none. A process that takes longer is killed.
pub(super) async fn run(
    node: &Node,
    request: &cri::ExecSyncRequest,
) -> Result<cri::ExecSyncResponse> {
    if request.timeout < 0 {
        return Err(Error::Invalid(format!("timeout {} is negative", request.timeout)));
    }
    let stream = node.exec(&request.container_id, &request.cmd, false, false).await?;
    let collected = collect(stream);
    if request.timeout == 0 {
        return collected.await;
    }
    let limit = Duration::from_secs(request.timeout.unsigned_abs());
    // Dropping the stream makes the shim kill the process.
    tokio::time::timeout(limit, collected).await.unwrap_or_else(|_| {
        Err(Error::Deadline(format!(
            "failed to exec in container: timeout {}s exceeded: context deadline exceeded",
            request.timeout
        )))
    })
}

async fn collect(mut stream: UnixStream) -> Result<cri::ExecSyncResponse> {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let broken =
        |error: &dyn std::fmt::Display| Error::Failed(format!("the pod's shim broke off: {error}"));
    loop {
        match read_frame(&mut stream).await.map_err(|error| broken(&error))? {
            Some((Kind::Stdout, text)) => keep(&mut stdout, &text),
            Some((Kind::Stderr, text)) => keep(&mut stderr, &text),
            Some((Kind::Json, text)) => {
                let Ok(Answer::Exited { code }) = serde_json::from_slice(&text) else { continue };
                return Ok(cri::ExecSyncResponse {
                    stdout: stdout.into(),
                    stderr: stderr.into(),
                    exit_code: code,
                });
            }
            Some(_) => {}
            None => return Err(broken(&"it ended before the process did")),
        }
    }
}

fn keep(kept: &mut Vec<u8>, text: &[u8]) {
    let room = MAX_OUTPUT.saturating_sub(kept.len());
    kept.extend_from_slice(&text[..text.len().min(room)]);
}

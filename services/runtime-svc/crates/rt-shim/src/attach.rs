//! Clients that follow a container's first process.

use std::rc::Rc;

use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;

use crate::containers::Container;
use crate::exec::resize;
use crate::wire::{Answer, Kind, read_frame, write_frame, write_json};

/// Moves streams until the container ends or the client leaves, which leaves the container alone.
pub(crate) async fn run(container: Rc<Container>, stdin: bool, stream: UnixStream) {
    let (reader, mut writer) = stream.into_split();
    let mut output = container.outputs.subscribe();
    if write_json(&mut writer, &Answer::Ok).await.is_err() {
        return;
    }
    let listening = tokio::task::spawn_local(listen(container.clone(), stdin, reader));
    let mut listening = Some(listening);
    loop {
        tokio::select! {
            chunk = output.recv() => match chunk {
                Some((kind, text)) => {
                    if write_frame(&mut writer, kind, &text).await.is_err() {
                        break;
                    }
                }
                None => break,
            },
            left = async {
                match listening.as_mut() {
                    Some(task) => task.await.unwrap_or(true),
                    None => std::future::pending().await,
                }
            } => {
                listening = None;
                if left {
                    break;
                }
            }
        }
    }
    if let Some(task) = listening {
        task.abort();
    }
    if !container.is_running() {
        container.ended().await;
        let code = container.report.borrow().exit.map_or(255, |exit| exit.code);
        let _ = write_json(&mut writer, &Answer::Exited { code }).await;
    }
}

/// Takes input and resizes; true when the client left.
async fn listen(container: Rc<Container>, stdin: bool, mut reader: OwnedReadHalf) -> bool {
    let close_input = || {
        if stdin && container.stdin_once {
            container.stdin.borrow_mut().take();
        }
    };
    while let Ok(Some((kind, payload))) = read_frame(&mut reader).await {
        match kind {
            Kind::Stdin if payload.is_empty() => close_input(),
            Kind::Stdin if stdin => {
                let input = container.stdin.borrow().clone();
                if let Some(input) = input {
                    // The program may have closed its input.
                    let _ = input.send(payload).await;
                }
            }
            Kind::Resize => resize(container.terminal.as_ref(), &payload),
            _ => {}
        }
    }
    close_input();
    true
}

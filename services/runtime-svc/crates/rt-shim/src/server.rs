//! The control socket: one request a connection.

use std::fs;
use std::io;
use std::rc::Rc;

use tokio::io::AsyncReadExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::broadcast::error::RecvError;

use crate::containers::{Container, exit_file, start};
use crate::pod::Pod;
use crate::wire::{Answer, ContainerReport, Failure, FailureKind, Request, read_json, write_json};
use crate::{attach, exec};

/// Serves connections until the process ends.
pub(crate) async fn accept(pod: Rc<Pod>, listener: UnixListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::task::spawn_local(connection(pod.clone(), stream));
            }
            // Out of descriptors: wait for some to be closed.
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
        }
    }
}

async fn connection(pod: Rc<Pod>, mut stream: UnixStream) {
    let Ok(Some(request)) = read_json::<Request, _>(&mut stream).await else { return };
    // A client that left needs no answer.
    let _ = serve(pod, request, stream).await;
}

async fn serve(pod: Rc<Pod>, request: Request, mut stream: UnixStream) -> io::Result<()> {
    let answer = match request {
        Request::Events => return events(&pod, stream).await,
        Request::Exec { id, process, stdin } => match running(&pod, &id) {
            Ok(container) => {
                return {
                    let _: () = exec::run(pod, container, *process, stdin, stream).await;
                    Ok(())
                };
            }
            Err(failed) => Err(failed),
        },
        Request::Attach { id, stdin } => match running(&pod, &id) {
            Ok(container) => {
                return {
                    let _: () = attach::run(container, stdin, stream).await;
                    Ok(())
                };
            }
            Err(failed) => Err(failed),
        },
        Request::Start(spec) => {
            start(&pod, *spec).await.map(|(pid, identity)| Answer::Started { pid, identity })
        }
        Request::Signal { id, signal, all } => find(&pod, &id).map(|container| {
            container.signal(&pod.ground, signal, all);
            Answer::Ok
        }),
        Request::ReopenLog { id } => find(&pod, &id).and_then(|container| {
            let reopened = container.outputs.log.borrow_mut().reopen();
            reopened.map(|()| Answer::Ok).map_err(|error| Failure {
                kind: FailureKind::Other,
                message: format!("open the container log: {error}"),
            })
        }),
        Request::Forget { id } => {
            forget(&pod, &id);
            Ok(Answer::Ok)
        }
        Request::Shutdown => {
            pod.kill_all().await;
            write_json(&mut stream, &Answer::Ok).await?;
            pod.ended.notify_one();
            return Ok(());
        }
    };
    write_json(&mut stream, &answer.unwrap_or_else(Answer::Failed)).await
}

fn find(pod: &Pod, id: &str) -> Result<Rc<Container>, Failure> {
    pod.containers.borrow().get(id).cloned().ok_or_else(|| Failure {
        kind: FailureKind::NotFound,
        message: format!("container {id} was not started"),
    })
}

fn running(pod: &Pod, id: &str) -> Result<Rc<Container>, Failure> {
    let container = find(pod, id)?;
    if container.is_running() {
        return Ok(container);
    }
    Err(Failure { kind: FailureKind::NotRunning, message: format!("container {id} does not run") })
}

fn forget(pod: &Pod, id: &str) {
    let ended = pod.containers.borrow().get(id).is_some_and(|container| !container.is_running());
    if ended {
        pod.containers.borrow_mut().remove(id);
        // Never written when the container failed to start.
        let _ = fs::remove_file(exit_file(&pod.spec.dir, id));
    }
}

async fn events(pod: &Pod, mut stream: UnixStream) -> io::Result<()> {
    let mut changes = pod.events.subscribe();
    let (mut reader, mut writer) = stream.split();
    write_json(&mut writer, &all(pod)).await?;
    let mut unexpected = [0];
    loop {
        let next = tokio::select! {
            next = changes.recv() => next,
            // The client never sends more, so this ends when it left.
            _ = reader.read(&mut unexpected) => return Ok(()),
        };
        let answer = match next {
            Ok(change) => Answer::Containers(vec![change]),
            Err(RecvError::Lagged(_)) => all(pod),
            Err(RecvError::Closed) => return Ok(()),
        };
        write_json(&mut writer, &answer).await?;
    }
}

fn all(pod: &Pod) -> Answer {
    let reports: Vec<ContainerReport> = pod
        .containers
        .borrow()
        .values()
        .map(|container| container.report.borrow().clone())
        .collect();
    Answer::Containers(reports)
}

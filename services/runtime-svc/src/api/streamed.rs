//! Answers that come in several messages: long lists, and events.

use std::pin::Pin;

use flotilla_proto::cri::runtime::v1 as cri;
use futures::Stream;
use tonic::Status;

use super::convert;
use crate::engine::events::{Change, Event};
use crate::engine::node::Node;

/// A stream of answers.
pub(super) type Chunks<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Objects in one message of a streamed list.
const CHUNK: usize = 100;

/// A list in pieces.
pub(super) fn chunks<I: Send + 'static, T: Send + 'static>(
    items: Vec<I>,
    wrap: fn(Vec<I>) -> T,
) -> Chunks<T> {
    let mut parts = Vec::new();
    let mut items = items.into_iter().peekable();
    while items.peek().is_some() {
        parts.push(Ok(wrap(items.by_ref().take(CHUNK).collect())));
    }
    Box::pin(futures::stream::iter(parts))
}

/// An event with the statuses as they are now.
pub(super) fn container_event(node: &Node, event: &Event) -> cri::ContainerEventResponse {
    let kind = match event.change {
        Change::Created => cri::ContainerEventType::ContainerCreatedEvent,
        Change::Started => cri::ContainerEventType::ContainerStartedEvent,
        Change::Stopped => cri::ContainerEventType::ContainerStoppedEvent,
        Change::Deleted => cri::ContainerEventType::ContainerDeletedEvent,
    };
    let sandbox = node.sandbox(&event.sandbox_id).ok();
    cri::ContainerEventResponse {
        container_id: event.id.clone(),
        container_event_type: kind as i32,
        created_at: event.at,
        pod_sandbox_status: sandbox.map(|sandbox| convert::sandbox_status(&sandbox.record())),
        containers_statuses: convert::statuses_of(node, &event.sandbox_id),
    }
}

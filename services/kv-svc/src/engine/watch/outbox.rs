//! Events on their way to one stream, bounded.

use std::collections::VecDeque;

use flotilla_proto::etcd::mvccpb::Event;
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::Notify;

/// Bytes of events a stream may have waiting before its watchers fall behind.
const BUDGET: usize = 4 << 20;
/// Deliveries a stream may have waiting.
const DELIVERIES: usize = 8_192;

/// Events of one transaction for one watcher.
#[derive(Debug)]
pub struct Delivery {
    /// The watcher, as the hub numbers it.
    pub watcher: u64,
    /// The transaction.
    pub revision: i64,
    /// Its events.
    pub events: Vec<Event>,
}

/// The queue of one stream.
#[derive(Debug, Default)]
pub struct Outbox {
    queue: Mutex<Queue>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    deliveries: VecDeque<(Delivery, usize)>,
    bytes: usize,
}

impl Outbox {
    /// Queues a delivery. False: there is no room and the watcher must catch up later.
    pub fn push(&self, delivery: Delivery) -> bool {
        let bytes: usize = delivery.events.iter().map(Message::encoded_len).sum();
        let mut queue = self.queue.lock();
        let full = queue.deliveries.len() >= DELIVERIES || queue.bytes + bytes > BUDGET;
        if full && !queue.deliveries.is_empty() {
            return false;
        }
        queue.bytes += bytes;
        queue.deliveries.push_back((delivery, bytes));
        drop(queue);
        self.wake.notify_one();
        true
    }

    /// Takes the oldest delivery.
    pub fn pop(&self) -> Option<Delivery> {
        let mut queue = self.queue.lock();
        let (delivery, bytes) = queue.deliveries.pop_front()?;
        queue.bytes -= bytes;
        Some(delivery)
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queue.lock().deliveries.is_empty()
    }

    /// Wakes the stream without a delivery.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Waits for a delivery or a wake-up since the last wait.
    pub async fn woken(&self) {
        self.wake.notified().await;
    }
}

//! Changes of containers and sandboxes, for those who follow them.

use tokio::sync::broadcast;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Made.
    Created,
    /// Its process runs.
    Started,
    /// Its process ended.
    Stopped,
    /// Removed.
    Deleted,
}

/// One change. Sent only after the records show it.
#[derive(Debug, Clone)]
pub struct Event {
    /// Container, or sandbox when it is the sandbox that changed.
    pub id: String,
    /// Its sandbox.
    pub sandbox_id: String,
    /// What happened.
    pub change: Change,
    /// Nanoseconds since the epoch.
    pub at: i64,
}

/// Sends events to everyone who follows.
#[derive(Debug)]
pub struct Events(broadcast::Sender<Event>);

impl Default for Events {
    fn default() -> Self {
        // A follower that lags further behind is told to list anew by the end of its stream.
        Self(broadcast::channel(4096).0)
    }
}

impl Events {
    /// Tells everyone.
    pub fn send(&self, event: Event) {
        // Nobody may listen.
        let _ = self.0.send(event);
    }

    /// Events from now on.
    pub fn follow(&self) -> broadcast::Receiver<Event> {
        self.0.subscribe()
    }
}

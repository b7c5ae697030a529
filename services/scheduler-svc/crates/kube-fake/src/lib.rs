//! An in-memory Kubernetes API server for tests.
//!
//! It keeps the rules that controllers and schedulers lean on: resource versions, optimistic locking,
//! status subresources, generations, graceful deletion, finalizers, bindings, watches in order. It does not
//! authenticate, validate or default more than those rules need, and it keeps its whole history, so that a
//! test can check an invariant at every change.

mod http;
mod kinds;
mod patch;
mod state;

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

pub use state::{Failure, Happening};

use state::State;

/// A running server. Dropping it ends it.
#[derive(Debug)]
pub struct FakeApi {
    shared: Arc<Shared>,
    addr: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) state: Mutex<State>,
    pub(crate) version: watch::Sender<u64>,
}

impl Shared {
    pub(crate) fn write<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock();
        let result = change(&mut state);
        let version = state.version();
        self.version.send_if_modified(|seen| std::mem::replace(seen, version) != version);
        result
    }
}

impl FakeApi {
    /// Starts a server on a free loopback port, with the usual namespaces.
    ///
    /// # Panics
    /// When no port can be bound.
    pub async fn start() -> Self {
        let shared =
            Arc::new(Shared { state: Mutex::new(State::new()), version: watch::channel(0).0 });
        for name in ["default", "kube-system"] {
            let namespace = json!({"metadata": {"name": name}});
            shared.write(|s| s.create("/api/v1/namespaces", namespace)).expect("names are new");
        }
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("a bound socket has an address");
        let router = http::router(shared.clone());
        let task = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Self { shared, addr, task }
    }

    /// Base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Creates an object in the collection at `path`.
    ///
    /// # Panics
    /// When the server would refuse it.
    pub fn create(&self, path: &str, object: Value) -> Value {
        self.shared.write(|s| s.create(path, object)).expect("the object is accepted")
    }

    /// One object.
    pub fn get(&self, path: &str) -> Option<Value> {
        self.shared.state.lock().get(path).ok()
    }

    /// Every object of a collection, of one namespace or of all.
    pub fn list(&self, path: &str) -> Vec<Value> {
        self.shared.state.lock().list(path).unwrap_or_default()
    }

    /// Changes spec and metadata of an object in place; `false` when there is none.
    pub fn edit(&self, path: &str, change: impl FnOnce(&mut Value)) -> bool {
        self.shared.write(|s| {
            let Ok(mut object) = s.get(path) else { return false };
            change(&mut object);
            s.update(path, object, false).is_ok()
        })
    }

    /// Changes the status of an object in place; `false` when there is none.
    pub fn edit_status(&self, path: &str, change: impl FnOnce(&mut Value)) -> bool {
        self.shared.write(|s| {
            let Ok(mut object) = s.get(path) else { return false };
            change(&mut object);
            s.update(path, object, true).is_ok()
        })
    }

    /// Deletes an object; `false` when there is none.
    pub fn delete(&self, path: &str, options: Value) -> bool {
        self.shared.write(|s| s.delete(path, &options)).is_ok()
    }

    /// Everything that happened since version `after`, oldest first.
    pub fn history(&self, after: u64) -> Vec<Happening> {
        self.shared.state.lock().history(after)
    }

    /// Version of the latest change.
    pub fn version(&self) -> u64 {
        self.shared.state.lock().version()
    }

    /// Forgets the history, so that watches from before now are answered with 410.
    pub fn compact(&self) {
        self.shared.write(State::compact);
    }
}

impl Drop for FakeApi {
    fn drop(&mut self) {
        self.task.abort();
    }
}

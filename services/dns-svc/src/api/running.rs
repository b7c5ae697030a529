//! What the pages and the gRPC API show of the server: replaced at every reload.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;

use crate::engine::Sites;
use crate::engine::kubernetes::Store;

/// State of one plan.
#[derive(Debug, Default)]
pub struct State {
    /// The Corefile as read.
    pub corefile: String,
    /// The sites of each port.
    pub ports: Vec<Arc<ArcSwap<Sites>>>,
    stores: Vec<(Arc<Store>, u8)>,
}

/// The running server.
#[derive(Debug, Default)]
pub struct Running {
    state: ArcSwap<State>,
    ending: AtomicBool,
}

impl Running {
    /// Shows another plan.
    pub fn set(
        &self,
        corefile: &str,
        ports: Vec<Arc<ArcSwap<Sites>>>,
        stores: Vec<(Arc<Store>, u8)>,
    ) {
        self.state.store(Arc::new(State { corefile: corefile.to_owned(), ports, stores }));
    }

    /// The plan shown.
    pub fn state(&self) -> Arc<State> {
        self.state.load_full()
    }

    /// From now on the server is not ready any more.
    pub fn end(&self) {
        self.ending.store(true, Ordering::Relaxed);
    }

    /// What the server waits for; it is ready once that is nothing.
    pub fn unready(&self) -> Vec<&'static str> {
        if self.ending.load(Ordering::Relaxed) {
            return vec!["shutdown"];
        }
        let state = self.state.load();
        let waiting = state.stores.iter().filter(|(store, wanted)| !store.is_synced(*wanted));
        waiting.map(|_| "kubernetes").collect()
    }
}

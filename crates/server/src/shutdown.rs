//! Ending a process: signals in, one token out.

use std::future::Future;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Fires once, when the process is asked to end. Clones share the state.
#[derive(Debug, Clone, Default)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    /// A shutdown nothing triggers yet; tests call [`Shutdown::trigger`].
    pub fn new() -> Self {
        Self::default()
    }

    /// A shutdown that SIGTERM and SIGINT trigger.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn on_signals() -> std::io::Result<Self> {
        let shutdown = Self::new();
        let (mut term, mut int) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let trigger = shutdown.clone();
        tokio::spawn(async move {
            let name = tokio::select! {
                _ = term.recv() => "SIGTERM",
                _ = int.recv() => "SIGINT",
            };
            tracing::info!(signal = name, "shutting down");
            trigger.trigger();
        });
        Ok(shutdown)
    }

    /// Asks everything that waits on this shutdown to end.
    pub fn trigger(&self) {
        self.0.cancel();
    }

    /// Whether the end was asked for.
    pub fn is_triggered(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Waits until the end is asked for.
    pub fn triggered(&self) -> impl Future<Output = ()> + Send + 'static {
        self.0.clone().cancelled_owned()
    }
}

/// Calls `reload` at every SIGHUP until `shutdown` fires.
///
/// # Errors
/// When the handler cannot be installed.
pub fn on_hangup(
    shutdown: Shutdown,
    mut reload: impl FnMut() + Send + 'static,
) -> std::io::Result<()> {
    let mut hangups = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = hangups.recv() => reload(),
                () = shutdown.triggered() => return,
            }
        }
    });
    Ok(())
}

//! What a runtime says about one pod.

/// Sandboxes and container runs of a pod, newest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observed {
    /// Sandboxes, newest first.
    pub sandboxes: Vec<Sandbox>,
    /// Runs of all containers, newest first.
    pub runs: Vec<Run>,
}

/// A sandbox.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sandbox {
    /// The runtime's id.
    pub id: String,
    /// How many sandboxes the pod had before.
    pub attempt: u32,
    /// Whether containers can run in it.
    pub ready: bool,
    /// Nanoseconds since the epoch.
    pub created_at: i64,
    /// Addresses, the primary one first; empty on the host's network.
    pub ips: Vec<String>,
}

/// What a run does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RunState {
    /// Created, never started.
    Created,
    /// Running.
    Running,
    /// Ended.
    Exited,
    /// The runtime cannot tell.
    #[default]
    Unknown,
}

/// One run of a container.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Run {
    /// The runtime's id.
    pub id: String,
    /// Name of the container in the pod.
    pub name: String,
    /// Its sandbox.
    pub sandbox: String,
    /// Restarts before this run.
    pub attempt: u32,
    /// What it does.
    pub state: RunState,
    /// Nanoseconds since the epoch; 0 is never.
    pub created_at: i64,
    /// As `created_at`.
    pub started_at: i64,
    /// As `created_at`.
    pub finished_at: i64,
    /// Exit code once exited.
    pub exit_code: i32,
    /// `Completed`, `Error`, `OOMKilled`, ...
    pub reason: String,
    /// Details of the reason, or the container's last words.
    pub message: String,
    /// Image as the runtime names it.
    pub image: String,
    /// Digest reference or id of the image.
    pub image_id: String,
    /// [`super::names::CONTAINER_HASH`] at creation.
    pub hash: String,
    /// Absolute path of the log.
    pub log_path: String,
    /// File on the node that takes the last words; empty when there is none.
    pub last_words: String,
    /// Whether the end of the log stands in for missing last words.
    pub log_as_last_words: bool,
}

impl Observed {
    /// The newest sandbox.
    pub fn sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.first()
    }

    /// The newest run of a container.
    pub fn latest(&self, name: &str) -> Option<&Run> {
        self.runs.iter().find(|run| run.name == name)
    }

    /// The newest run of a container inside one sandbox.
    pub fn latest_in(&self, name: &str, sandbox: &str) -> Option<&Run> {
        self.runs.iter().find(|run| run.name == name && run.sandbox == sandbox)
    }

    /// Whether a process of the pod may be alive.
    pub fn is_alive(&self) -> bool {
        self.sandboxes.iter().any(|sandbox| sandbox.ready)
            || self
                .runs
                .iter()
                .any(|run| matches!(run.state, RunState::Running | RunState::Unknown))
    }
}

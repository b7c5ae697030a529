//! What /health, /livez and /readyz look at.

use flotilla_proto::etcd::etcdserverpb::{AlarmType, RangeRequest};

use crate::engine::server::Server;
use crate::error::KvError;

/// A single check of /livez or /readyz.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// No corruption alarm.
    DataCorruption,
    /// This member can read its own state.
    SerializableRead,
    /// This member can read the cluster's state.
    LinearizableRead,
    /// This member votes.
    NonLearner,
}

impl Check {
    /// Checks of /livez.
    pub const LIVE: &'static [Self] = &[Self::SerializableRead];
    /// Checks of /readyz.
    pub const READY: &'static [Self] =
        &[Self::DataCorruption, Self::SerializableRead, Self::LinearizableRead, Self::NonLearner];

    /// Name in paths and answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::DataCorruption => "data_corruption",
            Self::SerializableRead => "serializable_read",
            Self::LinearizableRead => "linearizable_read",
            Self::NonLearner => "non_learner",
        }
    }

    /// Runs the check.
    ///
    /// # Errors
    /// What is wrong.
    pub async fn run(self, server: &Server) -> Result<(), String> {
        match self {
            Self::DataCorruption if server.keyspace().state().alarms.is_on(AlarmType::Corrupt) => {
                Err("alarm activated: CORRUPT".to_owned())
            }
            Self::DataCorruption => Ok(()),
            Self::SerializableRead => {
                read(server, true).await.map_err(|e| format!("range error: {e}"))
            }
            Self::LinearizableRead => {
                read(server, false).await.map_err(|e| format!("range error: {e}"))
            }
            Self::NonLearner if server.consensus().standing().learner => {
                Err("not supported for learner".to_owned())
            }
            Self::NonLearner => Ok(()),
        }
    }
}

async fn read(server: &Server, serializable: bool) -> Result<(), KvError> {
    let request = RangeRequest {
        key: bytes::Bytes::from_static(b"\0"),
        limit: 1,
        keys_only: true,
        serializable,
        ..RangeRequest::default()
    };
    if !serializable {
        server.consensus().read_barrier().await?;
    }
    // The process looks at its own state; permissions are for clients.
    server.keyspace().range(&request).map(drop)
}

/// What is wrong for /health, if anything. Alarms named in `exclude` do not count.
pub async fn unhealthy(server: &Server, exclude: &[String], serializable: bool) -> Option<String> {
    for kind in [AlarmType::Nospace, AlarmType::Corrupt] {
        let name = kind.as_str_name();
        if server.keyspace().state().alarms.is_on(kind)
            && !exclude.iter().any(|other| other == name)
        {
            return Some(format!("ALARM {name}"));
        }
    }
    if !serializable && server.consensus().standing().leader == 0 {
        return Some("RAFT NO LEADER".to_owned());
    }
    read(server, serializable).await.err().map(|error| format!("RANGE ERROR:{error}"))
}

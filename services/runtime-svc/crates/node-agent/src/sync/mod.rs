//! Keeping the node in step: one worker per pod, the runtime watched, the node reported.

pub mod agent;
pub mod dispatcher;
pub mod environment;
pub mod housekeeping;
pub mod images;
pub mod node;
pub mod pleg;
pub mod prober;
pub mod services;
pub mod start;
pub mod static_pods;
pub mod status_writer;
pub mod stop;
pub mod volumes;
pub mod worker;

//! Black-box tests of the controllers against an in-memory API server and a kubelet that only pretends.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop here")]

mod batch;
mod collection;
mod crash;
mod endpoints;
mod nodes;
mod rollout;
mod world;

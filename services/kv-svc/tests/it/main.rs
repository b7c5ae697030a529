//! Black-box tests of kv-svc over real sockets, and beside etcd 3.5.1.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop here")]

mod auth;
mod differential;
mod durability;
mod etcdctl;
mod harness;
mod leases;
mod pages;
mod recipes;
mod requests;
mod snapshots;
mod stores;
mod watches;

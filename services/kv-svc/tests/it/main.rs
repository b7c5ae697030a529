//! Black-box tests of kv-svc over real sockets, and beside etcd 3.5.1.

mod auth;
mod differential;
mod durability;
mod etcdctl;
mod harness;
mod leases;
mod pages;
mod recipes;
mod requests;
mod stores;
mod watches;

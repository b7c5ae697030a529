//! Black-box tests of image-svc over real sockets.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop here")]

mod build;
mod content;
mod crash;
mod cri;
mod garbage;
mod hostile_tar;
mod images;
mod limits;
mod registry;
mod server;
mod skopeo;
mod snapshots;
mod startup;
mod unpack;

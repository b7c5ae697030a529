//! Black-box tests of runtime-svc: real containers through the CRI socket, with a leak check at the end of each.
//!
//! They need root and an image service; where image-svc cannot be built yet, containerd stands in, which also
//! proves that it can.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop here")]

mod fixture;
mod image;
mod leaks;

mod engine_api;
mod exec;
mod lifecycle;
mod limits;
mod network;
mod recovery;
mod refusals;
mod streams;

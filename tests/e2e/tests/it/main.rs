//! The whole suite at work. One at a time: each starts all services, and the machine is small.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop here")]

mod app;
mod bad_input;
mod compose;
mod main_job;
mod own_apis;
mod suite;

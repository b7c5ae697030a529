//! Watches: every change after a revision, in order, once, none left out.
//!
//! The [`hub::Hub`] hands changes to the watchers they concern as they are applied. A watcher that starts in the
//! past, or whose stream does not keep up, is behind; its [`session::Session`] reads the store until it is level.

pub mod filter;
pub mod hub;
pub mod outbox;
pub mod session;

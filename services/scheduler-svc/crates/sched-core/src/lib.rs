//! The scheduling decision: pure, deterministic, without I/O or clock.

//! Jobs, daemon sets and stateful sets.

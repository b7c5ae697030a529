//! Feeds the scheduling core from the API and binds pods.

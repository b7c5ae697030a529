//! The machine: shim processes, files, cgroups, the pod network.

pub mod bridge;
pub mod machine;
pub mod nft;
pub mod own_binary;
pub mod preflight;
pub mod shims;

mod netns;

//! Controllers that bring the cluster to the desired state.

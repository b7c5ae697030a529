//! Patches of Kubernetes objects: JSON patch, merge patch, strategic merge, server-side apply.

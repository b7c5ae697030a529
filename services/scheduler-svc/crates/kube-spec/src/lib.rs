//! Tables of the Kubernetes API: kinds, fields, numbers, merge keys, defaults.

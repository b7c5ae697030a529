//! Service VIPs.

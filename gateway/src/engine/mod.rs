//! The decisions of the proxy: which route, which endpoint, whether to try again. No sockets and no codecs.

pub mod balance;
pub mod headers;
pub mod host_match;
pub mod matcher;
pub mod path;
pub mod retry;
pub mod route;
pub mod route_compile;
pub mod table;

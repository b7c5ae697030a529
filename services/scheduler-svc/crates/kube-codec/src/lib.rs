//! Kubernetes objects between JSON, YAML and protobuf, driven by the tables of [`kube_spec`].
//!
//! Inside the suite's API an object is a JSON tree in Go's canonical form: what `encoding/json` would print for
//! the typed object. [`typed`] brings a client's JSON or YAML into that form and reports what a strict client
//! wants to hear; [`proto`] moves it to and from the protobuf form that the store holds.
//!
//! Every decoder here reads bytes from outside: depth and sizes are limited, and errors carry the texts that
//! kube-apiserver's decoders give.

mod canonical;
mod duration;
pub mod proto;
mod quantity;
mod text;
mod time;
mod typed;
mod unknown;

pub use canonical::{fill, zero_object};
pub use quantity::Quantity;
pub use text::{Parsed, TextError, parse_json, parse_yaml, yaml};
pub use time::{micro_time, now, parse_time, seconds_time};
pub use typed::{TypedError, typed};
pub use unknown::{Envelope, MAGIC, unwrap_unknown, wrap_unknown};

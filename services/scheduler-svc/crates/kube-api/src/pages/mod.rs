//! Answers that are no objects: discovery, OpenAPI, tables, health, version.

mod cells;
mod discovery;
mod health;
mod openapi;
mod openapi_paths;
mod table;

pub use discovery::{discovery, paths};
pub use health::{RequestLabels, health, version};
pub use openapi::{openapi_v2, openapi_v3};
pub use table::table;

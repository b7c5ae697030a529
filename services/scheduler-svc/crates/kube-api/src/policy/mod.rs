//! The rules of kinds: what is set on creation and update, defaults, and what is refused.

mod admission;
mod defaults;
mod fields;
mod prepare;
mod validate;

pub use defaults::apply_defaults;
pub(crate) use fields::{before_first_apply, managers_of, position, write as write_managers};
pub use fields::{track_create, track_update};
pub use prepare::{Phase, check_delete, finished, generated_name, prepare_create, prepare_update};
pub use validate::{validate_create, validate_update};

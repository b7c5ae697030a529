//! Bookkeeping of `managedFields`.

use serde_json::Value;

use super::Phase;
use crate::object;

/// Fields of a new object have no recorded managers: only server-side apply keeps books, and it is not served.
pub fn track_create(created: &mut Value, _manager: &str) {
    object::remove_meta(created, "managedFields");
}

/// What an earlier server recorded stays.
pub fn track_update(current: &Value, next: &mut Value, _manager: &str, _phase: Phase) {
    let recorded = current.pointer("/metadata/managedFields").cloned();
    match recorded {
        Some(list) => {
            object::meta_mut(next).insert("managedFields".to_owned(), list);
        }
        None => object::remove_meta(next, "managedFields"),
    }
}

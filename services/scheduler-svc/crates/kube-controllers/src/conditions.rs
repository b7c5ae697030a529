//! Lists of status conditions.

use flotilla_kube_client::now_rfc3339;
use serde_json::{Value, json};

/// The condition of this type.
pub fn find<'a>(conditions: &'a [Value], kind: &str) -> Option<&'a Value> {
    conditions.iter().find(|c| c["type"] == kind)
}

/// Removes the condition of this type.
pub fn remove(conditions: &mut Vec<Value>, kind: &str) {
    conditions.retain(|c| c["type"] != kind);
}

/// Sets a condition. It stays as it is when status and reason are the same; the transition time changes only
/// with the status.
pub fn set(conditions: &mut Vec<Value>, kind: &str, status: &str, reason: &str, message: &str) {
    let old = find(conditions, kind).cloned();
    let same = |c: &Value| c["status"] == status && c["reason"] == reason;
    if old.as_ref().is_some_and(same) {
        return;
    }
    put(conditions, kind, status, reason, message);
}

/// Sets a condition and its update time, even when nothing but the time changes.
pub fn put(conditions: &mut Vec<Value>, kind: &str, status: &str, reason: &str, message: &str) {
    let now = now_rfc3339();
    let old = find(conditions, kind);
    let kept = old.filter(|c| c["status"] == status).map(|c| c["lastTransitionTime"].clone());
    let transition = kept.filter(Value::is_string).unwrap_or_else(|| json!(now));
    remove(conditions, kind);
    conditions.push(json!({"type": kind, "status": status, "reason": reason, "message": message,
        "lastUpdateTime": now, "lastTransitionTime": transition}));
}

//! RFC 6902.

use serde_json::Value;

use crate::PatchError;

/// Applies the operations in order; none of them when one fails.
///
/// # Errors
/// When an operation is malformed, a path leads nowhere or a test fails.
pub fn json_patch(target: &Value, operations: &[Value]) -> Result<Value, PatchError> {
    let mut document = target.clone();
    for operation in operations {
        apply(&mut document, operation)?;
    }
    Ok(document)
}

fn apply(document: &mut Value, operation: &Value) -> Result<(), PatchError> {
    let text = |key: &str| operation.get(key).and_then(Value::as_str);
    let kind =
        text("op").ok_or_else(|| PatchError::Malformed("Unexpected kind: unknown".to_owned()))?;
    let path =
        text("path").ok_or_else(|| PatchError::Malformed("missing path field".to_owned()))?;
    let value = || {
        operation
            .get("value")
            .cloned()
            .ok_or_else(|| PatchError::Malformed("missing value field".to_owned()))
    };
    let from =
        || text("from").ok_or_else(|| PatchError::Malformed("missing from field".to_owned()));
    match kind {
        "add" => add(document, path, value()?),
        "remove" => remove(document, path).map(drop),
        "replace" => {
            let slot = document.pointer_mut(path).ok_or_else(|| missing("replace", path))?;
            *slot = value()?;
            Ok(())
        }
        "move" => {
            let moved = remove(document, from()?)?;
            add(document, path, moved)
        }
        "copy" => {
            let from = from()?;
            let copied = document.pointer(from).cloned().ok_or_else(|| missing("copy", from))?;
            add(document, path, copied)
        }
        "test" => {
            let found = document.pointer(path).unwrap_or(&Value::Null);
            if *found == operation.get("value").cloned().unwrap_or(Value::Null) {
                Ok(())
            } else {
                Err(PatchError::TestFailed(format!("testing value {path} failed")))
            }
        }
        other => Err(PatchError::Malformed(format!("Unexpected kind: {other}"))),
    }
}

fn missing(what: &str, path: &str) -> PatchError {
    PatchError::Missing(format!(
        "{what} operation does not apply: doc is missing key: {path}: missing value"
    ))
}

/// Parent pointer and last token of a path.
fn split(path: &str) -> Result<(&str, String), PatchError> {
    let at = path
        .rfind('/')
        .ok_or_else(|| PatchError::Malformed(format!("invalid JSON pointer: {path:?}")))?;
    Ok((&path[..at], path[at + 1..].replace("~1", "/").replace("~0", "~")))
}

fn add(document: &mut Value, path: &str, value: Value) -> Result<(), PatchError> {
    if path.is_empty() {
        *document = value;
        return Ok(());
    }
    let (parent, token) = split(path)?;
    match document.pointer_mut(parent) {
        Some(Value::Object(map)) => {
            map.insert(token, value);
            Ok(())
        }
        Some(Value::Array(list)) => {
            let at = if token == "-" { list.len() } else { index(&token, list.len() + 1, path)? };
            list.insert(at, value);
            Ok(())
        }
        _ => Err(PatchError::Missing(format!(
            "add operation does not apply: doc is missing path: {path:?}: missing value"
        ))),
    }
}

fn remove(document: &mut Value, path: &str) -> Result<Value, PatchError> {
    let (parent, token) = split(path)?;
    match document.pointer_mut(parent) {
        Some(Value::Object(map)) => map.remove(&token).ok_or_else(|| {
            PatchError::Missing(format!(
                "remove operation does not apply: doc is missing path: {path:?}: missing value"
            ))
        }),
        Some(Value::Array(list)) => {
            let at = index(&token, list.len(), path)?;
            Ok(list.remove(at))
        }
        _ => Err(missing("remove", path)),
    }
}

fn index(token: &str, len: usize, path: &str) -> Result<usize, PatchError> {
    let plain = !token.is_empty() && token.bytes().all(|b| b.is_ascii_digit());
    let at = if plain { token.parse::<usize>().ok() } else { None };
    at.filter(|at| *at < len).ok_or_else(|| {
        PatchError::Missing(format!(
            "Unable to access invalid index: {token} of {path:?}: invalid index referenced"
        ))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn operations_work_in_order() {
        let target = json!({"a": [1, 2], "b": {"c/d": 1}});
        let operations = [
            json!({"op": "test", "path": "/a/0", "value": 1}),
            json!({"op": "add", "path": "/a/-", "value": 3}),
            json!({"op": "remove", "path": "/a/0"}),
            json!({"op": "replace", "path": "/b/c~1d", "value": 2}),
            json!({"op": "copy", "from": "/b", "path": "/e"}),
            json!({"op": "move", "from": "/a/1", "path": "/f"}),
        ];
        let want = json!({"a": [2], "b": {"c/d": 2}, "e": {"c/d": 2}, "f": 3});
        assert_eq!(json_patch(&target, &operations).unwrap(), want);
    }

    #[test]
    fn failures_say_which_kind() {
        let run = |op| json_patch(&json!({"a": [1]}), &[op]).unwrap_err();
        assert!(matches!(
            run(json!({"op": "test", "path": "/a/0", "value": 2})),
            PatchError::TestFailed(_)
        ));
        assert!(matches!(run(json!({"op": "remove", "path": "/x"})), PatchError::Missing(_)));
        assert!(matches!(
            run(json!({"op": "add", "path": "/a/7", "value": 2})),
            PatchError::Missing(_)
        ));
        assert!(matches!(run(json!({"op": "fly", "path": "/a"})), PatchError::Malformed(_)));
        assert!(matches!(run(json!({})), PatchError::Malformed(_)));
    }
}

//! Short hashes for names, in the alphabet that forms no words.

use serde_json::Value;

const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// FNV-1a, 32 bits.
fn fnv1a(state: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(state, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(16_777_619))
}

/// Hash of a template, different for each collision count.
pub fn template_hash(template: &Value, collisions: Option<i64>) -> String {
    let mut hash = fnv1a(2_166_136_261, normal(template).to_string().as_bytes());
    if let Some(count) = collisions {
        hash = fnv1a(hash, &count.to_le_bytes());
    }
    safe(&hash.to_string())
}

/// Replaces each character by one that is safe in names and forms no words.
fn safe(text: &str) -> String {
    text.bytes().map(|b| char::from(ALPHABET[usize::from(b) % ALPHABET.len()])).collect()
}

/// Whether two templates ask for the same pods.
pub fn same_template(a: &Value, b: &Value) -> bool {
    normal(a) == normal(b)
}

/// A template without the hash label and without empty fields, keys in order.
fn normal(template: &Value) -> Value {
    let mut template = template.clone();
    if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove("pod-template-hash");
    }
    prune(&mut template, true);
    template
}

/// Drops nulls and empty lists everywhere, and empty maps where they mean nothing.
fn prune(value: &mut Value, top: bool) {
    match value {
        Value::Object(map) => {
            for (name, child) in map.iter_mut() {
                prune(child, top && name == "metadata");
            }
            map.retain(|name, child| match child {
                Value::Null => false,
                Value::Array(list) => !list.is_empty(),
                Value::Object(fields) => {
                    !fields.is_empty()
                        || !(top || matches!(name.as_str(), "resources" | "securityContext"))
                }
                _ => true,
            });
        }
        Value::Array(list) => list.iter_mut().for_each(|child| prune(child, false)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn hash_label_and_empty_fields_do_not_count() {
        let a = json!({"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [
            {"name": "c", "resources": {}}], "nodeName": null}});
        let b = json!({"metadata": {"labels": {"app": "x", "pod-template-hash": "1"},
            "creationTimestamp": null, "annotations": {}}, "spec": {"containers": [{"name": "c"}]}});
        assert!(same_template(&a, &b));
        assert_eq!(template_hash(&a, None), template_hash(&b, None));
        let c =
            json!({"metadata": {"labels": {"app": "y"}}, "spec": {"containers": [{"name": "c"}]}});
        assert!(!same_template(&a, &c));
    }

    #[test]
    fn empty_volume_source_counts() {
        let a = json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}});
        let b = json!({"spec": {"volumes": [{"name": "v"}]}});
        assert!(!same_template(&a, &b));
    }

    #[test]
    fn collisions_change_the_hash() {
        let a = json!({"spec": {}});
        assert_ne!(template_hash(&a, None), template_hash(&a, Some(1)));
        assert_ne!(template_hash(&a, Some(2)), template_hash(&a, Some(1)));
        assert!(template_hash(&a, None).bytes().all(|b| ALPHABET.contains(&b)));
    }
}

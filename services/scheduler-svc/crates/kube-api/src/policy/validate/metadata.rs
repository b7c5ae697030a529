//! Names, labels, annotations and owners.

use kube_spec::Resource;
use serde_json::Value;

use super::{Errors, names};
use crate::error::FieldError;
use crate::object;

const MAX_ANNOTATIONS: usize = 256 << 10;

pub(super) fn check(resource: &Resource, object: &Value, errors: &mut Errors) {
    let name = object::name(object);
    let wrong = match (resource.group, resource.plural) {
        ("", "namespaces") => names::label(name),
        ("", "services") => names::label_1035(name),
        ("rbac.authorization.k8s.io", _) => names::path_segment(name),
        ("networking.k8s.io", "ipaddresses") => None,
        _ => names::subdomain(name),
    };
    if name.is_empty() {
        errors.push(FieldError::required("metadata.name", "name or generateName is required"));
    } else if let Some(why) = wrong {
        errors.push(FieldError::invalid("metadata.name", &name.into(), &why));
    }
    check_labels(object.pointer("/metadata/labels"), "metadata.labels", errors);
    let mut size = 0;
    for (key, value) in object::map(object, "/metadata/annotations").into_iter().flatten() {
        if let Some(why) = names::qualified(&key.to_lowercase()) {
            errors.push(FieldError::invalid("metadata.annotations", &key.as_str().into(), &why));
        }
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > MAX_ANNOTATIONS {
        errors.push(FieldError {
            reason: "FieldValueTooLong",
            field: "metadata.annotations".to_owned(),
            message: format!("Too long: may not be more than {MAX_ANNOTATIONS} bytes"),
        });
    }
    check_owners(object, errors);
    for (i, finalizer) in object::list(object, "/metadata/finalizers").iter().enumerate() {
        if let Some(why) = finalizer.as_str().and_then(names::qualified) {
            errors.push(FieldError::invalid(format!("metadata.finalizers[{i}]"), finalizer, &why));
        }
    }
}

pub(super) fn check_labels(labels: Option<&Value>, field: &str, errors: &mut Errors) {
    for (key, value) in labels.and_then(Value::as_object).into_iter().flatten() {
        if let Some(why) = names::qualified(key) {
            errors.push(FieldError::invalid(field, &key.as_str().into(), &why));
        }
        if let Some(why) = names::label_value(value.as_str().unwrap_or_default()) {
            errors.push(FieldError::invalid(field, value, &why));
        }
    }
}

fn check_owners(object: &Value, errors: &mut Errors) {
    let owners = object::list(object, "/metadata/ownerReferences");
    for (i, owner) in owners.iter().enumerate() {
        for key in ["apiVersion", "kind", "name", "uid"] {
            if object::text(owner, &format!("/{key}")).is_empty() {
                let field = format!("metadata.ownerReferences[{i}].{key}");
                errors.push(FieldError::invalid(
                    field,
                    &"".into(),
                    &format!("{key} must not be empty"),
                ));
            }
        }
    }
    if owners.iter().filter(|o| o["controller"] == true).count() > 1 {
        let why = "Only one reference can have Controller set to true";
        errors.push(FieldError::invalid(
            "metadata.ownerReferences",
            &Value::Array(owners.to_vec()),
            why,
        ));
    }
}

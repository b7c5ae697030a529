//! What Go's `encoding/json` leaves out and what it prints as zero.

use kube_spec::{Field, Struct, Type};
use serde_json::{Map, Value, json};

/// Brings the fields of `object` into canonical form: zero values of optional fields go, those of fields that
/// are always printed come.
pub fn fill(spec: &'static Struct, object: &mut Map<String, Value>) {
    for field in &spec.fields {
        if field.inline {
            if let (Some(inner), false) = (field.ty.as_struct(), field.ty.is_ptr()) {
                fill(inner, object);
            }
            continue;
        }
        match object.get(field.name) {
            None => {
                if let Some(zero) = printed_zero(field) {
                    object.insert(field.name.to_owned(), zero);
                }
            }
            Some(value) => {
                if left_out(field, value) {
                    object.remove(field.name);
                }
            }
        }
    }
}

/// The canonical form of a message with nothing set.
pub fn zero_object(spec: &'static Struct) -> Value {
    let mut object = Map::new();
    fill(spec, &mut object);
    Value::Object(object)
}

fn printed_zero(field: &Field) -> Option<Value> {
    if field.omitzero {
        return None;
    }
    match &field.ty {
        Type::Struct(id) => Some(zero_object(id.get())),
        Type::Time | Type::MicroTime | Type::Raw => Some(Value::Null),
        Type::Quantity => Some(json!("0")),
        Type::IntOrString => Some(json!(0)),
        Type::Duration => Some(json!("0s")),
        _ if field.omitempty => None,
        ty => Some(zero(ty)),
    }
}

fn left_out(field: &Field, value: &Value) -> bool {
    match &field.ty {
        Type::Ptr(_) => field.omitempty && value.is_null(),
        Type::Struct(id) => field.omitzero && is_zero(id.get(), value),
        Type::Time | Type::MicroTime => field.omitzero && value.is_null(),
        Type::Quantity | Type::IntOrString | Type::Duration | Type::Raw => false,
        _ if !field.omitempty => false,
        _ => match value {
            Value::Null => true,
            Value::Bool(set) => !set,
            Value::Number(n) => n.as_f64() == Some(0.0),
            Value::String(s) => s.is_empty(),
            Value::Array(a) => a.is_empty(),
            Value::Object(o) => o.is_empty(),
        },
    }
}

fn is_zero(spec: &'static Struct, value: &Value) -> bool {
    value.is_null() || *value == zero_object(spec)
}

/// The zero value of a type as Go prints it.
pub(crate) fn zero(ty: &Type) -> Value {
    match ty {
        Type::String => json!(""),
        Type::Bool => json!(false),
        Type::Int32 | Type::Int64 | Type::IntOrString => json!(0),
        Type::Double => json!(0),
        Type::Duration => json!("0s"),
        Type::Quantity => json!("0"),
        Type::Struct(id) => zero_object(id.get()),
        _ => Value::Null,
    }
}

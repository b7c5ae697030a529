//! A client's tree into the canonical form of a type, with Go's error texts.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kube_spec::{Field, Struct, Type};
use serde_json::{Map, Value, json};
use thiserror::Error;

use crate::{Quantity, canonical, duration, time};

/// Unknown fields that are reported at most.
const MAX_REPORTS: usize = 100;

/// Why a tree is no object of a type. The text is what Go's decoder says.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct TypedError(String);

struct Decoder<'u> {
    unknown: &'u mut Vec<String>,
}

/// Brings `value` into the canonical form of `spec`; paths of fields the type does not have go to `unknown`.
///
/// `apiVersion` and `kind` of the object itself are kept.
///
/// # Errors
/// When a value does not fit its field.
pub fn typed(
    spec: &'static Struct,
    value: Value,
    unknown: &mut Vec<String>,
) -> Result<Value, TypedError> {
    let Value::Object(mut object) = value else {
        return Err(TypedError(format!(
            "json: cannot unmarshal {} into Go value of type {}",
            kind_of(&value),
            spec.go_name()
        )));
    };
    let own: Vec<(&str, Value)> =
        ["apiVersion", "kind"].into_iter().filter_map(|k| Some((k, object.remove(k)?))).collect();
    let mut object = Decoder { unknown }.object(spec, object, &Path::default())?;
    for (key, value) in own {
        object.insert(key.to_owned(), value);
    }
    Ok(Value::Object(object))
}

/// Where a value is: with list indices for strict errors, without for type errors.
#[derive(Clone, Default)]
struct Path {
    full: String,
    plain: String,
    owner: &'static str,
}

impl Path {
    fn key(&self, name: &str, owner: &'static str) -> Self {
        let join =
            |base: &str| if base.is_empty() { name.to_owned() } else { format!("{base}.{name}") };
        Self { full: join(&self.full), plain: join(&self.plain), owner }
    }

    fn index(&self, i: usize) -> Self {
        Self { full: format!("{}[{i}]", self.full), ..self.clone() }
    }
}

impl Decoder<'_> {
    fn object(
        &mut self,
        spec: &'static Struct,
        input: Map<String, Value>,
        path: &Path,
    ) -> Result<Map<String, Value>, TypedError> {
        let has_meta = spec.field("metadata").is_some();
        let mut output = Map::new();
        for (key, value) in input {
            let Some((_, field)) = spec.field(&key) else {
                if !(has_meta && (key == "apiVersion" || key == "kind"))
                    && self.unknown.len() < MAX_REPORTS
                {
                    self.unknown.push(path.key(&key, "").full);
                }
                continue;
            };
            if value.is_null() {
                continue;
            }
            let value = self.value(&field.ty, value, &path.key(&key, spec.short_name()), field)?;
            output.insert(key, value);
        }
        canonical::fill(spec, &mut output);
        Ok(output)
    }

    fn value(
        &mut self,
        ty: &'static Type,
        value: Value,
        path: &Path,
        field: &'static Field,
    ) -> Result<Value, TypedError> {
        let wrong = |value: &Value| mismatch(ty, value, path);
        Ok(match (ty, value) {
            (Type::Ptr(inner), value) => return self.value(inner, value, path, field),
            (_, Value::Null) => canonical::zero(ty),
            (Type::Struct(id), Value::Object(object)) => {
                Value::Object(self.object(id.get(), object, path)?)
            }
            (Type::List(inner), Value::Array(list)) => self.list(inner, list, path, field)?,
            (Type::Wrap(inner), value) => return self.value(inner, value, path, field),
            (Type::Map(inner), Value::Object(map)) => {
                let mut output = Map::new();
                for (key, item) in map {
                    let item = self.value(inner, item, &path.key(&key, path.owner), field)?;
                    output.insert(key, item);
                }
                Value::Object(output)
            }
            (Type::Bool, v @ Value::Bool(_)) | (Type::String, v @ Value::String(_)) => v,
            (Type::Int32 | Type::Int64, Value::Number(n)) => {
                integer(ty, &n).ok_or_else(|| wrong(&Value::Number(n)))?
            }
            (Type::Double, v @ Value::Number(_)) => v,
            (Type::Bytes, Value::String(text)) => bytes(&text)?,
            (
                Type::Time | Type::MicroTime | Type::Duration | Type::Quantity | Type::IntOrString,
                v,
            ) => special(ty, v, path)?,
            (Type::Raw, v) => v,
            (Type::FieldsV1, v @ Value::Object(_)) => v,
            (_, v) => return Err(wrong(&v)),
        })
    }

    fn list(
        &mut self,
        inner: &'static Type,
        list: Vec<Value>,
        path: &Path,
        field: &'static Field,
    ) -> Result<Value, TypedError> {
        let mut output = Vec::with_capacity(list.len());
        for (i, item) in list.into_iter().enumerate() {
            output.push(self.value(inner, item, &path.index(i), field)?);
        }
        Ok(Value::Array(output))
    }
}

fn integer(ty: &Type, number: &serde_json::Number) -> Option<Value> {
    let n = number.as_i64().or_else(|| {
        let f = number.as_f64()?;
        (f.fract() == 0.0 && f.abs() < 9e15).then_some(f as i64)
    })?;
    if *ty == Type::Int32 && i32::try_from(n).is_err() {
        return None;
    }
    Some(json!(n))
}

fn bytes(text: &str) -> Result<Value, TypedError> {
    let clean: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let at = clean.bytes().position(|b| !(b.is_ascii_alphanumeric() || b"+/=".contains(&b)));
    match STANDARD.decode(&clean) {
        Ok(raw) => Ok(Value::String(STANDARD.encode(raw))),
        Err(_) => Err(TypedError(format!(
            "illegal base64 data at input byte {}",
            at.unwrap_or(clean.len() / 4 * 4)
        ))),
    }
}

fn special(ty: &Type, value: Value, path: &Path) -> Result<Value, TypedError> {
    match (ty, &value) {
        (Type::IntOrString, Value::Number(n)) => {
            integer(&Type::Int32, n).ok_or_else(|| mismatch(&Type::Int32, &value, path))
        }
        (Type::IntOrString, Value::String(_)) => Ok(value),
        (Type::Quantity, Value::Number(n)) => quantity(&n.to_string()),
        (Type::Quantity, Value::String(text)) => quantity(text),
        (Type::Duration, Value::String(text)) => {
            let nanos = duration::parse(text)
                .ok_or_else(|| TypedError(format!("time: invalid duration {text:?}")))?;
            Ok(Value::String(duration::format(nanos)))
        }
        (Type::Time | Type::MicroTime, Value::String(text)) if text.is_empty() => Ok(Value::Null),
        (Type::Time | Type::MicroTime, Value::String(text)) => {
            let fail = || {
                TypedError(format!(
                    "parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {text:?} as \"2006\""
                ))
            };
            let (seconds, nanos) = time::parse_time(text).ok_or_else(fail)?;
            let printed = match ty {
                Type::Time => time::seconds_time(seconds),
                _ => time::micro_time(seconds, nanos),
            };
            printed.map(Value::String).ok_or_else(fail)
        }
        _ => Err(mismatch(ty, &value, path)),
    }
}

fn quantity(text: &str) -> Result<Value, TypedError> {
    match text.parse::<Quantity>() {
        Ok(quantity) => Ok(Value::String(quantity.to_string())),
        Err(error) => Err(TypedError(error.to_string())),
    }
}

fn kind_of(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "bool".to_owned(),
        Value::Number(_) => "number".to_owned(),
        Value::String(_) => "string".to_owned(),
        Value::Array(_) => "array".to_owned(),
        Value::Object(_) => "object".to_owned(),
    }
}

fn mismatch(ty: &Type, value: &Value, path: &Path) -> TypedError {
    let mut what = kind_of(value);
    if let (Value::Number(n), Type::Int32 | Type::Int64) = (value, ty) {
        what = format!("number {n}");
    }
    TypedError(format!(
        "json: cannot unmarshal {what} into Go struct field {}.{} of type {}",
        path.owner,
        path.plain,
        go_type(ty)
    ))
}

fn go_type(ty: &Type) -> String {
    match ty {
        Type::String => "string".to_owned(),
        Type::Bool => "bool".to_owned(),
        Type::Int32 => "int32".to_owned(),
        Type::Int64 => "int64".to_owned(),
        Type::Double => "float64".to_owned(),
        Type::Bytes => "[]uint8".to_owned(),
        Type::Time | Type::MicroTime => "string".to_owned(),
        Type::Duration => "string".to_owned(),
        Type::Quantity => "resource.Quantity".to_owned(),
        Type::IntOrString => "intstr.IntOrString".to_owned(),
        Type::Raw => "runtime.RawExtension".to_owned(),
        Type::FieldsV1 => "v1.FieldsV1".to_owned(),
        Type::Struct(id) => id.get().go_name(),
        Type::Ptr(inner) | Type::Wrap(inner) => go_type(inner),
        Type::List(inner) => format!("[]{}", go_type(inner)),
        Type::Map(inner) => format!("map[string]{}", go_type(inner)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment() -> &'static Struct {
        kube_spec::types().find("apps/v1.Deployment").unwrap().get()
    }

    #[test]
    fn unknown_fields_are_named_with_their_path() {
        let mut unknown = Vec::new();
        let input = json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "img": "x"}]}}, "foo": 1}});
        typed(deployment(), input, &mut unknown).unwrap();
        unknown.sort();
        assert_eq!(unknown, ["spec.foo", "spec.template.spec.containers[0].img"]);
    }

    #[test]
    fn wrong_types_read_as_go_says_them() {
        let error =
            typed(deployment(), json!({"spec": {"replicas": "3"}}), &mut Vec::new()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"
        );
    }

    #[test]
    fn quantities_become_canonical() {
        let pod = kube_spec::types().find("core/v1.Pod").unwrap().get();
        let input = json!({"spec": {"containers": [{"name": "a", "resources": {"limits": {"cpu": 0.5, "memory": "1024Ki"}}}]}});
        let output = typed(pod, input, &mut Vec::new()).unwrap();
        assert_eq!(
            output["spec"]["containers"][0]["resources"]["limits"],
            json!({"cpu": "500m", "memory": "1Mi"})
        );
    }
}

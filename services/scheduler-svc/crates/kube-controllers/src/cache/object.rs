//! Any object: typed metadata, the rest as it came.

use std::fmt;

use flotilla_kube_client::{ObjectMeta, OwnerReference, Regarding};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Kind;

/// Namespace and name; the namespace is empty for cluster-scoped kinds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Key {
    /// A key of these two.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// An object of any kind.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Object {
    /// Group and version; lists may leave it out.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    /// Kind; lists may leave it out.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Metadata.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// `spec`, `status` and whatever else the kind has.
    #[serde(flatten)]
    pub body: Map<String, Value>,
}

impl Object {
    /// A new object of this kind.
    pub fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        let mut object = Self {
            api_version: kind.api_version.to_owned(),
            kind: kind.kind.to_owned(),
            ..Self::default()
        };
        object.metadata.namespace = namespace.to_owned();
        object.metadata.name = name.to_owned();
        object
    }

    /// Its key.
    pub fn key(&self) -> Key {
        Key::new(&self.metadata.namespace, &self.metadata.name)
    }

    /// The value at a JSON pointer below the object (`/spec/replicas`); metadata is not below it.
    pub fn at(&self, pointer: &str) -> Option<&Value> {
        let mut parts = pointer.trim_start_matches('/').splitn(2, '/');
        let first = self.body.get(parts.next()?)?;
        let value = match parts.next() {
            None => Some(first),
            Some(rest) => first.pointer(&format!("/{rest}")),
        };
        value.filter(|v| !v.is_null())
    }

    /// The integer at a pointer.
    pub fn int(&self, pointer: &str) -> Option<i64> {
        self.at(pointer).and_then(Value::as_i64)
    }

    /// The text at a pointer; empty when there is none.
    pub fn text(&self, pointer: &str) -> &str {
        self.at(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// Whether the pointer holds `true`.
    pub fn flag(&self, pointer: &str) -> bool {
        self.at(pointer).and_then(Value::as_bool).unwrap_or_default()
    }

    /// The list at a pointer; empty when there is none.
    pub fn list(&self, pointer: &str) -> &[Value] {
        self.at(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
    }

    /// Sets the field `name` of a top-level part such as `spec`.
    pub fn set(&mut self, part: &str, name: &str, value: Value) {
        let part = self.body.entry(part).or_insert_with(|| Value::Object(Map::new()));
        if !part.is_object() {
            *part = Value::Object(Map::new());
        }
        part[name] = value;
    }

    /// The condition of this type in the status.
    pub fn condition(&self, kind: &str) -> Option<&Value> {
        self.list("/status/conditions").iter().find(|c| c["type"] == kind)
    }

    /// The owner that manages this object.
    pub fn controller(&self) -> Option<&OwnerReference> {
        self.metadata.owner_references.iter().find(|o| o.controller == Some(true))
    }

    /// Whether that is the object with this uid.
    pub fn controlled_by(&self, uid: &str) -> bool {
        self.controller().is_some_and(|owner| owner.uid == uid)
    }

    /// Whether the object is being deleted.
    pub fn deleting(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    /// Resource version as a number; 0 when it is none.
    pub fn version(&self) -> u64 {
        self.metadata.resource_version.parse().unwrap_or(0)
    }

    /// When it was created.
    pub fn created(&self) -> Timestamp {
        parse_time(self.metadata.creation_timestamp.as_deref().unwrap_or_default())
            .unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// A reference that makes this object the managing owner of another one.
    pub fn owner_reference(&self, kind: Kind) -> OwnerReference {
        OwnerReference {
            api_version: kind.api_version.to_owned(),
            kind: kind.kind.to_owned(),
            name: self.metadata.name.clone(),
            uid: self.metadata.uid.clone(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }
    }

    /// This object as the subject of an event.
    pub fn regarding(&self, kind: Kind) -> Regarding {
        Regarding::new(kind.api_version, kind.kind, &self.metadata)
    }
}

/// Reads an RFC 3339 time.
pub fn parse_time(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

//! `meta.k8s.io/v1 Table`: the columns kubectl shows.

use kube_spec::Resource;
use serde_json::{Value, json};

use super::cells::{Column, columns};
use crate::{object, views};

/// A table of objects. `include` says what rows carry: `None`, `Metadata` or `Object`.
pub fn table(
    resource: &Resource,
    objects: &[&Value],
    metadata: Option<Value>,
    include: &str,
) -> Value {
    let columns = columns(resource);
    let definitions: Vec<Value> = columns.iter().map(definition).collect();
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            let cells: Vec<Value> = columns.iter().map(|c| (c.cell)(object)).collect();
            let mut row = json!({"cells": cells});
            match include {
                "None" => row["object"] = Value::Null,
                "Object" => row["object"] = (*object).clone(),
                _ => row["object"] = views::partial(object),
            }
            row
        })
        .collect();
    let metadata = metadata.unwrap_or_else(|| {
        let version = objects.first().map(|o| object::version(o)).unwrap_or_default();
        json!({"resourceVersion": version})
    });
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        "columnDefinitions": definitions, "rows": rows,
    })
}

fn definition(column: &Column) -> Value {
    let format = if column.name == "Name" { "name" } else { "" };
    json!({
        "name": column.name, "type": column.kind, "format": format,
        "description": "", "priority": i32::from(column.wide),
    })
}

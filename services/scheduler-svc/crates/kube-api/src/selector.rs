//! Label and field selectors.

use kube_spec::Resource;
use serde_json::Value;

use crate::error::ApiError;
use crate::object;

/// One condition on labels.
#[derive(Debug, Clone, PartialEq)]
enum Condition {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
    Greater(String, i64),
    Less(String, i64),
}

/// What a list or watch is limited to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Selector {
    labels: Vec<Condition>,
    fields: Vec<(String, String, bool)>,
}

impl Selector {
    /// Reads both selectors of a request.
    ///
    /// # Errors
    /// 400 for selectors that do not parse or fields the resource cannot be selected by.
    pub fn parse(resource: &Resource, labels: &str, fields: &str) -> Result<Self, ApiError> {
        let labels = parse_labels(labels)
            .map_err(|why| ApiError::bad_request(format!("unable to parse requirement: {why}")))?;
        let fields = parse_fields(fields).map_err(|e| ApiError::bad_request(e.to_string()))?;
        for (field, _, _) in &fields {
            if !selectable(resource, field) {
                let message = format!("field label not supported: {field}");
                return Err(ApiError::bad_request(message));
            }
        }
        Ok(Self { labels, fields })
    }

    /// Whether everything matches.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Whether an object matches.
    pub fn matches(&self, object: &Value) -> bool {
        let labels = object::map(object, "/metadata/labels");
        let label = |key: &str| labels.and_then(|l| l.get(key)).and_then(Value::as_str);
        self.labels.iter().all(|condition| match condition {
            Condition::In(key, values) => label(key).is_some_and(|l| values.iter().any(|v| v == l)),
            Condition::NotIn(key, values) => {
                label(key).is_none_or(|l| values.iter().all(|v| v != l))
            }
            Condition::Exists(key) => label(key).is_some(),
            Condition::Absent(key) => label(key).is_none(),
            Condition::Greater(key, n) => {
                label(key).and_then(|l| l.parse::<i64>().ok()).is_some_and(|l| l > *n)
            }
            Condition::Less(key, n) => {
                label(key).and_then(|l| l.parse::<i64>().ok()).is_some_and(|l| l < *n)
            }
        }) && self
            .fields
            .iter()
            .all(|(field, want, equal)| (field_text(object, field) == *want) == *equal)
    }
}

fn field_text(object: &Value, field: &str) -> String {
    if field == "source" {
        return object::text(object, "/source/component").to_owned();
    }
    let pointer = format!("/{}", field.replace('.', "/"));
    match object.pointer(&pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Bool(b)) => b.to_string(),
        Some(Value::Number(n)) => n.to_string(),
        _ if field == "spec.unschedulable" || field == "spec.hostNetwork" => "false".to_owned(),
        _ => String::new(),
    }
}

fn selectable(resource: &Resource, field: &str) -> bool {
    if matches!(field, "metadata.name" | "metadata.namespace") {
        return true;
    }
    match (resource.group, resource.plural) {
        ("", "pods") => matches!(
            field,
            "spec.nodeName"
                | "spec.restartPolicy"
                | "spec.schedulerName"
                | "spec.serviceAccountName"
                | "spec.hostNetwork"
                | "status.phase"
                | "status.podIP"
                | "status.nominatedNodeName"
        ),
        ("", "nodes") => field == "spec.unschedulable",
        ("", "namespaces") => field == "status.phase",
        ("", "secrets") => field == "type",
        ("", "services") => matches!(field, "spec.clusterIP" | "spec.type"),
        ("", "replicationcontrollers") => field == "status.replicas",
        ("apps", "replicasets") => field == "status.replicas",
        ("batch", "jobs") => field == "status.successful",
        (_, "events") => matches!(
            field,
            "involvedObject.kind"
                | "involvedObject.namespace"
                | "involvedObject.name"
                | "involvedObject.uid"
                | "involvedObject.apiVersion"
                | "involvedObject.resourceVersion"
                | "involvedObject.fieldPath"
                | "reason"
                | "reportingComponent"
                | "source"
                | "type"
        ),
        _ => false,
    }
}

fn parse_fields(text: &str) -> Result<Vec<(String, String, bool)>, String> {
    let mut list = Vec::new();
    for term in text.split(',').filter(|t| !t.is_empty()) {
        let (field, value, equal) = if let Some((f, v)) = term.split_once("!=") {
            (f, v, false)
        } else if let Some((f, v)) = term.split_once("==") {
            (f, v, true)
        } else if let Some((f, v)) = term.split_once('=') {
            (f, v, true)
        } else {
            return Err(format!("invalid selector: {text:?}; can't understand {term:?}"));
        };
        list.push((field.to_owned(), value.to_owned(), equal));
    }
    Ok(list)
}

fn parse_labels(text: &str) -> Result<Vec<Condition>, String> {
    let mut list = Vec::new();
    for term in split_terms(text) {
        let term = term.trim();
        if !term.is_empty() {
            list.push(parse_term(term)?);
        }
    }
    Ok(list)
}

/// Splits at commas outside of parentheses.
fn split_terms(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut terms) = (0i32, 0, Vec::new());
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth <= 0 => {
                terms.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

fn parse_term(term: &str) -> Result<Condition, String> {
    let key = |text: &str| -> Result<String, String> {
        let text = text.trim();
        if text.is_empty() || text.contains(|c: char| c.is_whitespace() || "(),=!<>".contains(c)) {
            return Err(format!("found {text:?}, expected: identifier"));
        }
        Ok(text.to_owned())
    };
    let value = |text: &str| text.trim().to_owned();
    if let Some((k, v)) = term.split_once("!=") {
        return Ok(Condition::NotIn(key(k)?, vec![value(v)]));
    }
    if let Some((k, v)) = term.split_once("==").or_else(|| term.split_once('=')) {
        if v.contains('=') || v.contains('!') {
            return Err(format!("found {v:?}, expected: ',' or end of string"));
        }
        return Ok(Condition::In(key(k)?, vec![value(v)]));
    }
    if let Some((k, v)) = term.split_once('>') {
        return Ok(Condition::Greater(
            key(k)?,
            v.trim()
                .parse()
                .map_err(|_| "for 'Gt', 'Lt' operators, the value must be an integer".to_owned())?,
        ));
    }
    if let Some((k, v)) = term.split_once('<') {
        return Ok(Condition::Less(
            key(k)?,
            v.trim()
                .parse()
                .map_err(|_| "for 'Gt', 'Lt' operators, the value must be an integer".to_owned())?,
        ));
    }
    if let Some(open) = term.find('(') {
        let inner = term[open + 1..].strip_suffix(')').ok_or("unclosed parenthesis")?;
        let values: Vec<String> = inner.split(',').map(value).collect();
        let mut words = term[..open].split_whitespace();
        let name = key(words.next().unwrap_or_default())?;
        return match (words.next(), words.next()) {
            (Some("in"), None) => Ok(Condition::In(name, values)),
            (Some("notin"), None) => Ok(Condition::NotIn(name, values)),
            (other, _) => {
                Err(format!("found {:?}, expected: in, notin", other.unwrap_or_default()))
            }
        };
    }
    if let Some(k) = term.strip_prefix('!') {
        return Ok(Condition::Absent(key(k)?));
    }
    Ok(Condition::Exists(key(term)?))
}

/// Whether a `LabelSelector` object (`matchLabels`, `matchExpressions`) selects `labels`.
pub fn selects(selector: &Value, labels: Option<&serde_json::Map<String, Value>>) -> bool {
    let label = |key: &str| labels.and_then(|l| l.get(key)).and_then(Value::as_str);
    let equal = object::map(selector, "/matchLabels")
        .is_none_or(|m| m.iter().all(|(k, v)| label(k) == v.as_str()));
    equal
        && object::list(selector, "/matchExpressions").iter().all(|expression| {
            let key = object::text(expression, "/key");
            let values = object::list(expression, "/values");
            let within = |l: &str| values.iter().any(|v| v.as_str() == Some(l));
            match object::text(expression, "/operator") {
                "In" => label(key).is_some_and(within),
                "NotIn" => !label(key).is_some_and(within),
                "Exists" => label(key).is_some(),
                "DoesNotExist" => label(key).is_none(),
                _ => false,
            }
        })
}

/// A label selector (or the plain map of a ReplicationController) as text; empty when it selects nothing special.
pub fn selector_text(selector: &Value) -> String {
    let structured = selector.get("matchLabels").is_some_and(Value::is_object)
        || selector.get("matchExpressions").is_some_and(Value::is_array);
    let equal =
        if structured { object::map(selector, "/matchLabels") } else { selector.as_object() };
    let mut terms: Vec<String> = equal
        .into_iter()
        .flatten()
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()))
        .collect();
    for expression in object::list(selector, "/matchExpressions") {
        let (key, operator) =
            (object::text(expression, "/key"), object::text(expression, "/operator"));
        let values: Vec<&str> =
            object::list(expression, "/values").iter().filter_map(Value::as_str).collect();
        terms.push(match operator {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    terms.join(",")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of_labels(text: &str) -> Option<Selector> {
        Selector::parse(kube_spec::find("", "v1", "pods").unwrap(), text, "").ok()
    }

    #[test]
    fn selectors_match_as_the_originals() {
        let object =
            json!({"metadata": {"name": "x", "labels": {"app": "web", "tier": "front", "n": "5"}}});
        for (text, want) in [
            ("app=web", true),
            ("app==web,tier=front", true),
            ("app!=web", false),
            ("app in (web,db)", true),
            ("app notin (web)", false),
            ("missing", false),
            ("!missing", true),
            ("n>4", true),
            ("n<5", false),
            ("x!=y", true),
            ("", true),
            ("app in (db), tier", false),
        ] {
            assert_eq!(of_labels(text).unwrap().matches(&object), want, "{text}");
        }
        for bad in ["app=a=b", "in (a)", "a in (b", "=x", "a b"] {
            assert!(of_labels(bad).is_none(), "{bad}");
        }
    }
}

//! Failures as `metav1.Status`, with the original's codes, reasons and texts.

use kube_spec::Resource;
use serde_json::{Value, json};

use crate::store::StoreError;

/// A failed request.
#[derive(Debug, Clone)]
pub struct ApiError {
    /// HTTP status.
    pub code: u16,
    /// `metav1.StatusReason`.
    pub reason: &'static str,
    /// Text for people.
    pub message: String,
    /// `metav1.StatusDetails`.
    pub details: Option<Value>,
    /// Token that goes on with an inconsistent list.
    pub continue_token: Option<String>,
}

/// One finding about a field.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldError {
    /// Reason such as `FieldValueRequired`.
    pub reason: &'static str,
    /// Path such as `spec.containers[0].name`.
    pub field: String,
    /// Text without the path.
    pub message: String,
}

impl FieldError {
    /// Something is missing.
    pub fn required(field: impl Into<String>, detail: &str) -> Self {
        let tail = if detail.is_empty() { String::new() } else { format!(": {detail}") };
        Self {
            reason: "FieldValueRequired",
            field: field.into(),
            message: format!("Required value{tail}"),
        }
    }

    /// A value is wrong.
    pub fn invalid(field: impl Into<String>, value: &Value, detail: &str) -> Self {
        let message = format!("Invalid value: {}: {detail}", shown(value));
        Self { reason: "FieldValueInvalid", field: field.into(), message }
    }

    /// A value is not one of a few.
    pub fn not_supported(field: impl Into<String>, value: &Value, allowed: &[&str]) -> Self {
        let allowed: Vec<String> = allowed.iter().map(|a| format!("{a:?}")).collect();
        let message = format!(
            "Unsupported value: {}: supported values: {}",
            shown(value),
            allowed.join(", ")
        );
        Self { reason: "FieldValueNotSupported", field: field.into(), message }
    }

    /// A value comes twice.
    pub fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        let message = format!("Duplicate value: {}", shown(value));
        Self { reason: "FieldValueDuplicate", field: field.into(), message }
    }

    /// A value may not be there.
    pub fn forbidden(field: impl Into<String>, detail: &str) -> Self {
        Self {
            reason: "FieldValueForbidden",
            field: field.into(),
            message: format!("Forbidden: {detail}"),
        }
    }

    /// Something a value refers to is not there.
    pub fn not_found(field: impl Into<String>, value: &Value) -> Self {
        let message = format!("Not found: {}", shown(value));
        Self { reason: "FieldValueNotFound", field: field.into(), message }
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{text:?}"),
        Value::Null => "null".to_owned(),
        other => other.to_string(),
    }
}

impl ApiError {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None, continue_token: None }
    }

    fn about(mut self, resource: &Resource, name: &str) -> Self {
        let mut details = json!({"kind": resource.plural});
        if !name.is_empty() {
            details["name"] = name.into();
        }
        if !resource.group.is_empty() {
            details["group"] = resource.group.into();
        }
        self.details = Some(details);
        self
    }

    /// 404 for an object.
    pub fn not_found(resource: &Resource, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{} {name:?} not found", resource.qualified()))
            .about(resource, name)
    }

    /// 404 for a path of the API that does not exist.
    pub fn no_such_path() -> Self {
        let mut error =
            Self::new(404, "NotFound", "the server could not find the requested resource");
        error.details = Some(json!({}));
        error
    }

    /// 409 for a taken name.
    pub fn already_exists(resource: &Resource, name: &str) -> Self {
        Self::new(409, "AlreadyExists", format!("{} {name:?} already exists", resource.qualified()))
            .about(resource, name)
    }

    /// 409 for a stale or unfitting write.
    pub fn conflict(resource: &Resource, name: &str, why: &str) -> Self {
        let message =
            format!("Operation cannot be fulfilled on {} {name:?}: {why}", resource.qualified());
        Self::new(409, "Conflict", message).about(resource, name)
    }

    /// 409: someone else was faster.
    pub fn modified(resource: &Resource, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(resource, name, why)
    }

    /// 422 with one cause per finding.
    pub fn invalid(resource: &Resource, name: &str, errors: &[FieldError]) -> Self {
        let texts: Vec<String> =
            errors.iter().map(|e| format!("{}: {}", e.field, e.message)).collect();
        let list =
            if texts.len() == 1 { texts.concat() } else { format!("[{}]", texts.join(", ")) };
        let kind = if resource.group.is_empty() {
            resource.kind.to_owned()
        } else {
            format!("{}.{}", resource.kind, resource.group)
        };
        let mut error = Self::new(422, "Invalid", format!("{kind} {name:?} is invalid: {list}"));
        let causes: Vec<Value> = errors
            .iter()
            .map(|e| json!({"reason": e.reason, "message": e.message, "field": e.field}))
            .collect();
        let mut details = json!({"name": name, "kind": resource.kind, "causes": causes});
        if !resource.group.is_empty() {
            details["group"] = resource.group.into();
        }
        error.details = Some(details);
        error
    }

    /// 409 for fields that others own.
    pub fn apply_conflicts(conflicts: &[kube_merge::Conflict]) -> Self {
        let place = |c: &kube_merge::Conflict| {
            format!("conflict with {:?} using {}", c.manager, c.api_version)
        };
        let message = match conflicts {
            [one] => format!(
                "Apply failed with 1 conflict: {}: {}",
                place(one),
                kube_merge::shown(&one.path)
            ),
            many => {
                let mut text = format!("Apply failed with {} conflicts: ", many.len());
                let mut last = String::new();
                for conflict in many {
                    let place = place(conflict);
                    if place != last {
                        text.push_str(&format!(
                            "{}{place}:",
                            if last.is_empty() { "" } else { "\n" }
                        ));
                        last = place;
                    }
                    text.push_str(&format!("\n- {}", kube_merge::shown(&conflict.path)));
                }
                text
            }
        };
        let causes: Vec<Value> = conflicts
            .iter()
            .map(|c| json!({"reason": "FieldManagerConflict", "message": place(c), "field": kube_merge::shown(&c.path)}))
            .collect();
        let mut error = Self::new(409, "Conflict", message);
        error.details = Some(json!({"causes": causes}));
        error
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 401.
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// 403 from authorization.
    pub fn forbidden(group: &str, resource: &str, name: &str, message: String) -> Self {
        let qualified =
            if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
        let what = if name.is_empty() { qualified } else { format!("{qualified} {name:?}") };
        let mut error = Self::new(403, "Forbidden", format!("{what} is forbidden: {message}"));
        let mut details = json!({"kind": resource});
        if !name.is_empty() {
            details["name"] = name.into();
        }
        if !group.is_empty() {
            details["group"] = group.into();
        }
        error.details = Some(details);
        error
    }

    /// 403 for a path outside the resources.
    pub fn forbidden_path(message: String) -> Self {
        let mut error = Self::new(403, "Forbidden", message);
        error.details = Some(json!({}));
        error
    }

    /// 405.
    pub fn method_not_allowed() -> Self {
        Self::new(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        )
    }

    /// 406.
    pub fn not_acceptable() -> Self {
        Self::new(
            406,
            "NotAcceptable",
            "only the following media types are accepted: application/json, application/yaml, \
             application/vnd.kubernetes.protobuf",
        )
    }

    /// 410.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 413.
    pub fn too_large(limit: usize) -> Self {
        Self::new(
            413,
            "RequestEntityTooLarge",
            format!("Request entity too large: limit is {limit}"),
        )
    }

    /// 415.
    pub fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// 429, for evictions that would break a budget.
    pub fn too_many(message: impl Into<String>) -> Self {
        Self::new(429, "TooManyRequests", message)
    }

    /// 500.
    pub fn internal(message: impl std::fmt::Display) -> Self {
        let mut error =
            Self::new(500, "InternalError", format!("Internal error occurred: {message}"));
        error.details = Some(json!({"causes": [{"message": message.to_string()}]}));
        error
    }

    /// 501 for what exists upstream and not here.
    pub fn not_supported_yet(name: &str) -> Self {
        Self::new(501, "NotImplemented", format!("not supported yet: {name}"))
    }

    /// 503.
    pub fn unavailable(message: impl Into<String>) -> Self {
        let mut error = Self::new(503, "ServiceUnavailable", message);
        error.details = Some(json!({"retryAfterSeconds": 1}));
        error
    }

    /// 504: a version that is not there yet.
    pub fn version_ahead(wanted: i64, current: i64) -> Self {
        let message = format!("Too large resource version: {wanted}, current: {current}");
        let mut error = Self::new(504, "Timeout", message);
        error.details = Some(json!({
            "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
            "retryAfterSeconds": 1,
        }));
        error
    }

    /// The `metav1.Status` of this failure.
    pub fn status(&self) -> Value {
        let mut metadata = json!({});
        if let Some(token) = &self.continue_token {
            metadata["continue"] = token.as_str().into();
        }
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": metadata, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        });
        if let Some(details) = &self.details {
            status["details"] = details.clone();
        }
        status
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(reason) => {
                Self::unavailable(format!("the store (etcd) does not answer: {reason}"))
            }
            StoreError::Compacted => {
                Self::expired("The resourceVersion for the provided list is too old.")
            }
            StoreError::Future => {
                Self::internal("etcdserver: mvcc: required revision is a future revision")
            }
            StoreError::TooLarge => Self::new(
                413,
                "RequestEntityTooLarge",
                "Request entity too large: limit is 3145728",
            ),
            StoreError::Other(reason) => Self::internal(reason),
        }
    }
}

//! DELETE: preconditions, grace, finalizers, propagation.

use axum::body::Body;
use http::Response;
use kube_codec::{now, seconds_time, typed};
use kube_spec::{Resource, types};
use serde_json::{Value, json};

use super::read::show;
use super::{Call, key};
use crate::error::ApiError;
use crate::object;
use crate::server::Api;

/// `metav1.DeleteOptions`
#[derive(Debug, Clone, Default)]
pub struct DeleteOptions {
    /// Seconds; `None` is the kind's default.
    pub grace: Option<i64>,
    /// Uid the object must have.
    pub uid: Option<String>,
    /// Version the object must have.
    pub version: Option<String>,
    /// `Background`, `Foreground` or `Orphan`.
    pub propagation: String,
    /// Check, but do not delete.
    pub dry_run: bool,
}

/// What became of an object.
pub(super) enum Deleted {
    Gone(Value),
    Terminating(Value),
}

impl DeleteOptions {
    /// Reads the query and the body.
    ///
    /// # Errors
    /// 400 when one of them does not parse.
    pub fn read(call: &Call) -> Result<Self, ApiError> {
        let mut options = Self { dry_run: call.dry_run()?, ..Self::default() };
        let seconds = call.query.get("gracePeriodSeconds");
        if !seconds.is_empty() {
            let grace = seconds.parse().map_err(|_| {
                ApiError::bad_request(format!(
                    "strconv.ParseInt: parsing {seconds:?}: invalid syntax"
                ))
            })?;
            options.grace = Some(grace);
        }
        options.propagation = call.query.get("propagationPolicy").to_owned();
        if call.query.flag("orphanDependents") {
            options.propagation = "Orphan".to_owned();
        }
        if !call.body.is_empty() {
            options.read_body(call)?;
        }
        match options.propagation.as_str() {
            "" | "Background" | "Foreground" | "Orphan" => Ok(options),
            other => Err(ApiError::bad_request(format!(
                "propagationPolicy: Unsupported value: {other:?}: supported values: \"Background\", \"Foreground\", \"Orphan\""
            ))),
        }
    }

    fn read_body(&mut self, call: &Call) -> Result<(), ApiError> {
        let spec = types().find("meta/v1.DeleteOptions").map(|id| id.get());
        let spec = spec.ok_or_else(|| ApiError::internal("no DeleteOptions in the tables"))?;
        let body = if call.body.starts_with(kube_codec::MAGIC) {
            let envelope = kube_codec::unwrap_unknown(&call.body);
            let envelope = envelope.map_err(|e| ApiError::bad_request(e.to_string()))?;
            kube_codec::proto::decode(spec, envelope.raw)
                .map_err(|e| ApiError::bad_request(e.to_string()))?
        } else {
            let media = crate::body::media_type(&call.headers);
            let parsed = if media.ends_with("yaml") {
                kube_codec::parse_yaml(&call.body)
            } else {
                kube_codec::parse_json(&call.body)
            };
            let parsed = parsed.map_err(|e| {
                ApiError::bad_request(format!("couldn't get version/kind; json parse error: {e}"))
            })?;
            typed(spec, parsed.value, &mut Vec::new())
                .map_err(|e| ApiError::bad_request(e.to_string()))?
        };
        self.grace = object::int(&body, "/gracePeriodSeconds").or(self.grace);
        let text = |pointer| {
            Some(object::text(&body, pointer).to_owned()).filter(|t: &String| !t.is_empty())
        };
        self.uid = text("/preconditions/uid");
        self.version = text("/preconditions/resourceVersion");
        if let Some(policy) = text("/propagationPolicy") {
            self.propagation = policy;
        }
        if object::text(&body, "/orphanDependents") == "true" || body["orphanDependents"] == true {
            self.propagation = "Orphan".to_owned();
        }
        self.dry_run |= !object::list(&body, "/dryRun").is_empty();
        Ok(())
    }
}

impl Api {
    pub(super) async fn delete(&self, call: &Call) -> Result<Response<Body>, ApiError> {
        let resource = call.resource();
        let options = DeleteOptions::read(call)?;
        let deleted = self
            .delete_object(
                crate::views::stored_as(resource),
                &call.target.namespace,
                &call.target.name,
                &options,
            )
            .await?;
        Ok(match deleted {
            Deleted::Terminating(object) => show(200, resource, &object, call.output),
            Deleted::Gone(object) if returns_object(resource) => {
                show(200, resource, &object, call.output)
            }
            Deleted::Gone(object) => call.output.respond(200, &success(resource, &object)),
        })
    }

    pub(super) async fn delete_object(
        &self,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<Deleted, ApiError> {
        let key = key(resource, namespace, name);
        let mut current = self.fetch(resource, &key).await?;
        loop {
            let Some(entry) = current else { return Err(ApiError::not_found(resource, name)) };
            check_preconditions(resource, name, &entry.object, options)?;
            crate::policy::check_delete(resource, &entry.object)?;
            let next = terminating(resource, &entry.object, options);
            if options.dry_run {
                return Ok(match next {
                    Some(next) => Deleted::Terminating(next),
                    None => Deleted::Gone(entry.object.clone()),
                });
            }
            let Some(mut next) = next else {
                match self.remove(resource, &key, &entry).await? {
                    Ok(_) => return Ok(Deleted::Gone(entry.object.clone())),
                    Err(found) => current = found,
                }
                continue;
            };
            let value = crate::stored::encode(resource, &next).map_err(ApiError::internal)?;
            if value == entry.stored {
                return Ok(Deleted::Terminating(entry.object.clone()));
            }
            match self.etcd.put(&self.store_key(resource, &key), value, entry.revision, 0).await? {
                crate::store::Outcome::Done(revision) => {
                    next["metadata"]["resourceVersion"] = revision.to_string().into();
                    return Ok(Deleted::Terminating(next));
                }
                crate::store::Outcome::Differs(_) => current = self.fetch(resource, &key).await?,
            }
        }
    }
}

fn check_preconditions(
    resource: &Resource,
    name: &str,
    object: &Value,
    options: &DeleteOptions,
) -> Result<(), ApiError> {
    if let Some(uid) = options.uid.as_deref().filter(|uid| *uid != object::uid(object)) {
        let why = format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            object::uid(object)
        );
        return Err(ApiError::conflict(resource, name, &why));
    }
    if let Some(version) = options.version.as_deref().filter(|v| *v != object::version(object)) {
        let why = format!(
            "Precondition failed: ResourceVersion in precondition: {version}, ResourceVersion in object meta: {}",
            object::version(object)
        );
        return Err(ApiError::conflict(resource, name, &why));
    }
    Ok(())
}

/// Seconds the object is given before it goes; 0 for kinds without graceful deletion.
fn grace(resource: &Resource, object: &Value, options: &DeleteOptions) -> i64 {
    if resource.plural != "pods" {
        return 0;
    }
    let done = matches!(object::text(object, "/status/phase"), "Succeeded" | "Failed");
    if object::text(object, "/spec/nodeName").is_empty() || done {
        return 0;
    }
    let own = object::int(object, "/spec/terminationGracePeriodSeconds").unwrap_or(30);
    // A negative period is one second, as upstream.
    match options.grace {
        Some(n) if n < 0 => 1,
        Some(n) => n,
        None => own,
    }
}

/// The object as it waits for its end; `None` when it can go at once.
fn terminating(resource: &Resource, object: &Value, options: &DeleteOptions) -> Option<Value> {
    let mut next = object.clone();
    let grace = grace(resource, object, options);
    let mut finalizers: Vec<Value> = object::list(object, "/metadata/finalizers").to_vec();
    let waiting = object::is_set(object, "/metadata/deletionTimestamp");
    let add = match options.propagation.as_str() {
        "Foreground" => Some("foregroundDeletion"),
        "Orphan" => Some("orphan"),
        _ => None,
    };
    if !options.propagation.is_empty() {
        finalizers.retain(|f| f != "orphan" && f != "foregroundDeletion");
        finalizers.extend(add.map(Value::from));
    }
    let spec_finalizers =
        resource.plural == "namespaces" && !object::list(object, "/spec/finalizers").is_empty();
    if grace == 0 && finalizers.is_empty() && !spec_finalizers {
        return None;
    }
    let metadata = object::meta_mut(&mut next);
    if finalizers.is_empty() {
        metadata.remove("finalizers");
    } else {
        metadata.insert("finalizers".to_owned(), Value::Array(finalizers));
    }
    let shorter =
        object::int(object, "/metadata/deletionGracePeriodSeconds").is_none_or(|old| grace < old);
    if !waiting || shorter {
        let until = seconds_time(now() + grace).unwrap_or_default();
        metadata.insert("deletionTimestamp".to_owned(), until.into());
        metadata.insert("deletionGracePeriodSeconds".to_owned(), grace.into());
        if let Some(generation) =
            metadata.get("generation").and_then(Value::as_i64).filter(|_| !waiting)
        {
            metadata.insert("generation".to_owned(), (generation + 1).into());
        }
    }
    if resource.plural == "namespaces" {
        object::map_mut(&mut next, "status").insert("phase".to_owned(), "Terminating".into());
    }
    Some(next)
}

fn returns_object(resource: &Resource) -> bool {
    resource.group.is_empty()
        && matches!(
            resource.plural,
            "pods"
                | "services"
                | "serviceaccounts"
                | "persistentvolumes"
                | "persistentvolumeclaims"
                | "podtemplates"
                | "resourcequotas"
        )
}

fn success(resource: &Resource, object: &Value) -> Value {
    let mut details =
        json!({"name": object::name(object), "kind": resource.plural, "uid": object::uid(object)});
    if !resource.group.is_empty() {
        details["group"] = resource.group.into();
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

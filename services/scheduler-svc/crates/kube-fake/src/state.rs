//! The objects, their history and the rules of writing them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::kinds::Target;

type Collection = (&'static str, &'static str);
type Key = (String, String);

/// One change of one object.
#[derive(Debug, Clone)]
pub struct Happening {
    /// Version of the change.
    pub version: u64,
    /// `ADDED`, `MODIFIED` or `DELETED`.
    pub action: &'static str,
    /// Plural name of the kind.
    pub plural: &'static str,
    /// The object after the change; its last state when deleted.
    pub object: Value,
    /// The object before the change; null when added.
    pub before: Value,
    pub(crate) collection: Collection,
}

/// Why a call is refused: HTTP status, reason, message.
#[derive(Debug, Clone)]
pub struct Failure(pub u16, pub &'static str, pub String);

#[derive(Debug)]
pub(crate) struct State {
    version: u64,
    compacted: u64,
    objects: BTreeMap<Collection, BTreeMap<Key, Value>>,
    log: Vec<Happening>,
    generated: u64,
}

fn not_found(path: &str) -> Failure {
    Failure(404, "NotFound", format!("{path} not found"))
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

impl State {
    pub(crate) fn new() -> Self {
        Self { version: 1, compacted: 0, objects: BTreeMap::new(), log: Vec::new(), generated: 0 }
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn compacted(&self) -> u64 {
        self.compacted
    }

    pub(crate) fn compact(&mut self) {
        self.compacted = self.version;
        self.version += 1;
    }

    pub(crate) fn history(&self, after: u64) -> Vec<Happening> {
        let from = self.log.partition_point(|h| h.version <= after);
        self.log[from..].to_vec()
    }

    pub(crate) fn get(&self, path: &str) -> Result<Value, Failure> {
        let target = Target::parse(path).ok_or_else(|| not_found(path))?;
        self.find(&target).cloned().ok_or_else(|| not_found(path))
    }

    fn find(&self, target: &Target) -> Option<&Value> {
        let key = (target.namespace.clone().unwrap_or_default(), target.name.clone()?);
        self.objects.get(&target.collection())?.get(&key)
    }

    pub(crate) fn list(&self, path: &str) -> Result<Vec<Value>, Failure> {
        let target = Target::parse(path).ok_or_else(|| not_found(path))?;
        let Some(objects) = self.objects.get(&target.collection()) else { return Ok(Vec::new()) };
        let wanted = |ns: &str| target.namespace.as_deref().is_none_or(|want| want == ns);
        Ok(objects.iter().filter(|((ns, _), _)| wanted(ns)).map(|(_, o)| o.clone()).collect())
    }

    pub(crate) fn create(&mut self, path: &str, mut object: Value) -> Result<Value, Failure> {
        let target = Target::parse(path).ok_or_else(|| not_found(path))?;
        let namespace = match &target.namespace {
            Some(ns) => ns.clone(),
            None if target.kind.namespaced => text(&object, "/metadata/namespace").to_owned(),
            None => String::new(),
        };
        if target.kind.namespaced {
            let parent = self.get(&format!("/api/v1/namespaces/{namespace}"))?;
            if parent["metadata"].get("deletionTimestamp").is_some() {
                let message = format!(
                    "unable to create new content in namespace {namespace} because it is being terminated"
                );
                return Err(Failure(403, "Forbidden", message));
            }
            object["metadata"]["namespace"] = json!(namespace);
        }
        let mut name = text(&object, "/metadata/name").to_owned();
        if name.is_empty() {
            self.generated += 1;
            name = format!("{}{:05}", text(&object, "/metadata/generateName"), self.generated);
        }
        let key = (namespace, name.clone());
        if self.objects.get(&target.collection()).is_some_and(|c| c.contains_key(&key)) {
            let message = format!("{} \"{name}\" already exists", target.kind.plural);
            return Err(Failure(409, "AlreadyExists", message));
        }
        object["kind"] = json!(target.kind.kind);
        object["apiVersion"] =
            json!(target.kind.prefix.trim_start_matches("/apis/").trim_start_matches("/api/"));
        let meta = &mut object["metadata"];
        meta["name"] = json!(name);
        meta["uid"] = json!(uuid::Uuid::new_v4().to_string());
        meta["creationTimestamp"] = json!(now());
        meta["generation"] = json!(1);
        match target.kind.plural {
            "namespaces" => {
                meta["labels"]["kubernetes.io/metadata.name"] = json!(name);
                object["spec"]["finalizers"] = json!(["kubernetes"]);
                object["status"]["phase"] = json!("Active");
            }
            "pods" if object["status"]["phase"].is_null() => {
                object["status"]["phase"] = json!("Pending");
            }
            _ => {}
        }
        self.store(target.collection(), key, "ADDED", object)
    }

    pub(crate) fn update(
        &mut self,
        path: &str,
        mut object: Value,
        status: bool,
    ) -> Result<Value, Failure> {
        let target = Target::parse(path).ok_or_else(|| not_found(path))?;
        let old = self.find(&target).cloned().ok_or_else(|| not_found(path))?;
        let wanted = text(&object, "/metadata/resourceVersion");
        if !wanted.is_empty() && wanted != text(&old, "/metadata/resourceVersion") {
            let message = "the object has been modified; please apply your changes to the \
                latest version and try again";
            return Err(Failure(409, "Conflict", message.to_owned()));
        }
        let uid = text(&object, "/metadata/uid");
        if !uid.is_empty() && uid != text(&old, "/metadata/uid") {
            return Err(Failure(409, "Conflict", "the uid differs".to_owned()));
        }
        if status {
            let new = object["status"].take();
            object = old.clone();
            object["status"] = new;
        } else {
            for field in ["uid", "creationTimestamp", "deletionTimestamp", "generation"] {
                match old["metadata"].get(field) {
                    Some(value) => object["metadata"][field] = value.clone(),
                    None => {
                        if let Some(meta) = object["metadata"].as_object_mut() {
                            meta.remove(field);
                        }
                    }
                }
            }
            if let Some(value) = old.get("status") {
                object["status"] = value.clone();
            }
            if object["spec"] != old["spec"] {
                let generation = old["metadata"]["generation"].as_i64().unwrap_or(1);
                object["metadata"]["generation"] = json!(generation + 1);
            }
        }
        object["kind"] = old["kind"].clone();
        object["apiVersion"] = old["apiVersion"].clone();
        object["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
        if object == old {
            return Ok(old);
        }
        self.settle(&target, object)
    }

    /// Stores the object, or removes it when nothing holds its deletion back any more.
    fn settle(&mut self, target: &Target, object: Value) -> Result<Value, Failure> {
        let meta = &object["metadata"];
        let held = meta["finalizers"].as_array().is_some_and(|f| !f.is_empty());
        let grace = meta["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) > 0;
        let space = target.kind.plural == "namespaces"
            && object["spec"]["finalizers"].as_array().is_some_and(|f| !f.is_empty());
        let gone = meta.get("deletionTimestamp").is_some() && !held && !grace && !space;
        let key =
            (target.namespace.clone().unwrap_or_default(), target.name.clone().unwrap_or_default());
        let action = if gone { "DELETED" } else { "MODIFIED" };
        self.store(target.collection(), key, action, object)
    }

    pub(crate) fn finalize(&mut self, path: &str, object: &Value) -> Result<Value, Failure> {
        let target = Target::parse(path).ok_or_else(|| not_found(path))?;
        let mut stored = self.find(&target).cloned().ok_or_else(|| not_found(path))?;
        stored["spec"]["finalizers"] = object["spec"]["finalizers"].clone();
        self.settle(&target, stored)
    }

    pub(crate) fn bind(&mut self, path: &str, node: &str) -> Result<(), Failure> {
        let target = Target::parse(path).ok_or_else(|| not_found(path))?;
        let mut pod = self.find(&target).cloned().ok_or_else(|| not_found(path))?;
        if !text(&pod, "/spec/nodeName").is_empty() {
            let message =
                format!("pod {} is already assigned to a node", text(&pod, "/metadata/name"));
            return Err(Failure(409, "Conflict", message));
        }
        if pod["metadata"].get("deletionTimestamp").is_some() {
            return Err(Failure(409, "Conflict", "the pod is being deleted".to_owned()));
        }
        pod["spec"]["nodeName"] = json!(node);
        pod["status"]["conditions"] = json!([{"type": "PodScheduled", "status": "True"}]);
        self.settle(&target, pod).map(drop)
    }

    pub(crate) fn delete(&mut self, path: &str, options: &Value) -> Result<Value, Failure> {
        let target = Target::parse(path).ok_or_else(|| not_found(path))?;
        let mut object = self.find(&target).cloned().ok_or_else(|| not_found(path))?;
        let before = object.clone();
        let uid = text(options, "/preconditions/uid");
        if !uid.is_empty() && uid != text(&object, "/metadata/uid") {
            return Err(Failure(409, "Conflict", "the uid differs".to_owned()));
        }
        let mut finalizers =
            object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
        let add = match text(options, "/propagationPolicy") {
            "Foreground" => Some(json!("foregroundDeletion")),
            "Orphan" => Some(json!("orphan")),
            _ => None,
        };
        if let Some(finalizer) = add.filter(|f| !finalizers.contains(f)) {
            finalizers.push(finalizer);
        }
        let held = !finalizers.is_empty();
        if held {
            object["metadata"]["finalizers"] = json!(finalizers);
        }
        let mut grace = 0;
        if target.kind.plural == "pods" {
            let phase = text(&object, "/status/phase");
            let running = !text(&object, "/spec/nodeName").is_empty()
                && !["Succeeded", "Failed"].contains(&phase);
            let usual = object["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or(30);
            if running {
                grace = options["gracePeriodSeconds"].as_i64().unwrap_or(usual);
            }
            if let Some(old) = object["metadata"]["deletionGracePeriodSeconds"].as_i64() {
                grace = grace.min(old);
            }
            object["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        }
        if object["metadata"].get("deletionTimestamp").is_none() {
            object["metadata"]["deletionTimestamp"] = json!(now());
        }
        if target.kind.plural == "namespaces" {
            object["status"]["phase"] = json!("Terminating");
        }
        if object == before {
            return Ok(object);
        }
        self.settle(&target, object)
    }

    fn store(
        &mut self,
        collection: Collection,
        key: Key,
        action: &'static str,
        mut object: Value,
    ) -> Result<Value, Failure> {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let objects = self.objects.entry(collection).or_default();
        let before = objects.remove(&key).unwrap_or_default();
        if action != "DELETED" {
            objects.insert(key, object.clone());
        }
        self.log.push(Happening {
            version: self.version,
            action,
            plural: collection.1,
            object: object.clone(),
            before,
            collection,
        });
        Ok(object)
    }
}

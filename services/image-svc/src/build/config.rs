//! The config of an image being built.

use serde_json::{Map, Value, json};

use super::dockerfile::{Form, Healthcheck};
use crate::engine::{Digest, Platform};

/// An image config (OCI image-spec). Fields of the base image that we do not know stay.
#[derive(Debug, Clone)]
pub(super) struct Config {
    document: Map<String, Value>,
}

impl Config {
    pub(super) fn scratch(platform: &Platform) -> Self {
        let mut document = Map::new();
        document.insert("architecture".to_owned(), json!(platform.architecture));
        document.insert("os".to_owned(), json!(platform.os));
        if !platform.variant.is_empty() {
            document.insert("variant".to_owned(), json!(platform.variant));
        }
        document.insert("rootfs".to_owned(), json!({"type": "layers", "diff_ids": []}));
        Self { document }
    }

    pub(super) fn from_base(bytes: &[u8]) -> Result<Self, String> {
        let document: Map<String, Value> = serde_json::from_slice(bytes)
            .map_err(|error| format!("config of the base image: {error}"))?;
        Ok(Self { document })
    }

    fn process(&mut self) -> &mut Map<String, Value> {
        let entry = self.document.entry("config").or_insert_with(|| json!({}));
        if !entry.is_object() {
            *entry = json!({});
        }
        entry.as_object_mut().expect("an object was just put there")
    }

    fn object(&mut self, name: &str) -> &mut Map<String, Value> {
        let entry = self.process().entry(name).or_insert_with(|| json!({}));
        if !entry.is_object() {
            *entry = json!({});
        }
        entry.as_object_mut().expect("an object was just put there")
    }

    fn text(&self, name: &str) -> String {
        let process = self.document.get("config");
        process.and_then(|p| p.get(name)).and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    pub(super) fn env(&self) -> Vec<(String, String)> {
        let list = self.document.get("config").and_then(|p| p.get("Env")).and_then(Value::as_array);
        let pair = |item: &Value| {
            let (name, value) = item.as_str()?.split_once('=')?;
            Some((name.to_owned(), value.to_owned()))
        };
        list.into_iter().flatten().filter_map(pair).collect()
    }

    pub(super) fn set_env(&mut self, name: &str, value: &str) {
        let mut list = self.env();
        match list.iter_mut().find(|(known, _)| known == name) {
            Some(entry) => value.clone_into(&mut entry.1),
            None => list.push((name.to_owned(), value.to_owned())),
        }
        let list: Vec<String> =
            list.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        self.process().insert("Env".to_owned(), json!(list));
    }

    pub(super) fn working_dir(&self) -> String {
        let dir = self.text("WorkingDir");
        if dir.is_empty() { "/".to_owned() } else { dir }
    }

    pub(super) fn shell(&self) -> Vec<String> {
        let shell = self.document.get("config").and_then(|p| p.get("Shell"));
        let words = shell.and_then(|shell| serde_json::from_value(shell.clone()).ok());
        words.unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()])
    }

    pub(super) fn set(&mut self, name: &str, value: Value) {
        self.process().insert(name.to_owned(), value);
    }

    pub(super) fn unset(&mut self, name: &str) {
        self.process().remove(name);
    }

    pub(super) fn add_to(&mut self, map: &str, name: &str, value: Value) {
        self.object(map).insert(name.to_owned(), value);
    }

    pub(super) fn set_command(&mut self, name: &str, form: &Form) {
        let argv = form.argv(&self.shell());
        self.set(name, json!(argv));
        if name == "Cmd" {
            match form {
                Form::Shell(_) => self.set("ArgsEscaped", json!(true)),
                Form::Exec(_) => self.unset("ArgsEscaped"),
            }
        }
    }

    pub(super) fn set_healthcheck(&mut self, check: &Healthcheck) {
        let mut value = Map::new();
        value.insert("Test".to_owned(), json!(check.test));
        let numbers = [
            ("Interval", check.interval),
            ("Timeout", check.timeout),
            ("StartPeriod", check.start_period),
            ("StartInterval", check.start_interval),
            ("Retries", check.retries),
        ];
        for (name, number) in numbers.into_iter().filter(|(_, number)| *number > 0) {
            value.insert(name.to_owned(), json!(number));
        }
        self.set("Healthcheck", Value::Object(value));
    }

    pub(super) fn set_author(&mut self, author: &str) {
        self.document.insert("author".to_owned(), json!(author));
    }

    /// Records a step, with the layer it made.
    pub(super) fn record(&mut self, text: &str, created: &str, layer: Option<&Digest>) {
        let mut step = json!({"created": created, "created_by": text, "comment": "image-svc"});
        match layer {
            Some(diff_id) => {
                let ids = self
                    .document
                    .get_mut("rootfs")
                    .and_then(|r| r.get_mut("diff_ids"))
                    .and_then(Value::as_array_mut);
                if let Some(ids) = ids {
                    ids.push(json!(diff_id));
                }
            }
            None => step["empty_layer"] = json!(true),
        }
        let history = self.document.entry("history").or_insert_with(|| json!([]));
        if let Some(history) = history.as_array_mut() {
            history.push(step);
        }
    }

    pub(super) fn finish(mut self, created: &str) -> Vec<u8> {
        self.document.insert("created".to_owned(), json!(created));
        Value::Object(self.document).to_string().into_bytes()
    }
}

//! Pods from manifests on the node.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::dispatcher::Input;
use crate::engine::kube::Pod;

/// Annotation of a mirror pod: the uid of its static pod.
pub const MIRROR: &str = "kubernetes.io/config.mirror";
const PERIOD: Duration = Duration::from_secs(1);
const MAX_MANIFEST: u64 = 4 << 20;

/// A pod from a manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct StaticPod {
    /// The pod with its node's name and a uid made from its content.
    pub pod: Pod,
    /// The object as written, completed.
    pub object: Value,
}

impl StaticPod {
    /// Completes a manifest.
    ///
    /// # Errors
    /// When it is no pod.
    pub fn new(text: &[u8], node: &str, origin: &Path) -> Result<Self, String> {
        let mut object: Value = serde_norway::from_slice(text).map_err(|e| e.to_string())?;
        if object["kind"] != "Pod" || object["apiVersion"] != "v1" {
            return Err("it is no Pod of apiVersion v1".to_owned());
        }
        let name = object["metadata"]["name"]
            .as_str()
            .filter(|name| !name.is_empty())
            .ok_or("metadata.name is missing")?;
        let mut digest = Sha256::new();
        for part in [node.as_bytes(), origin.as_os_str().as_encoded_bytes(), text] {
            digest.update(part);
            digest.update([0]);
        }
        let uid = hex::encode(&digest.finalize()[..16]);
        let name = format!("{name}-{node}");
        let metadata = &mut object["metadata"];
        metadata["name"] = name.into();
        metadata["uid"] = uid.clone().into();
        if metadata["namespace"].as_str().unwrap_or_default().is_empty() {
            metadata["namespace"] = "default".into();
        }
        if !metadata["annotations"].is_object() {
            metadata["annotations"] = json!({});
        }
        metadata["annotations"]["kubernetes.io/config.source"] = "file".into();
        metadata["annotations"]["kubernetes.io/config.hash"] = uid.into();
        object["spec"]["nodeName"] = node.into();
        let pod: Pod = serde_json::from_value(object.clone()).map_err(|e| e.to_string())?;
        if pod.spec.containers.is_empty() {
            return Err("spec.containers is empty".to_owned());
        }
        Ok(Self { pod, object })
    }

    /// The object that shows the pod in the API server.
    pub fn mirror(&self) -> Value {
        let mut object = self.object.clone();
        let uid = object["metadata"]["uid"].take();
        object["metadata"]["annotations"][MIRROR] = uid;
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.remove("uid");
        }
        if let Some(fields) = object.as_object_mut() {
            fields.remove("status");
        }
        object
    }
}

/// Follows a folder of manifests. A file that is no pod keeps its former pod running.
pub async fn follow(folder: PathBuf, node: String, inputs: mpsc::Sender<Input>) {
    let mut last: Vec<(PathBuf, StaticPod)> = Vec::new();
    let mut failures: Vec<(PathBuf, String)> = Vec::new();
    let mut first = true;
    loop {
        let mut fresh = Vec::new();
        let mut failed = Vec::new();
        for path in manifests(&folder) {
            match load(&path, &node) {
                Ok(pod) => fresh.push((path, pod)),
                Err(error) => {
                    if !failures.contains(&(path.clone(), error.clone())) {
                        tracing::error!(path = %path.display(), error, "not a usable manifest");
                    }
                    fresh.extend(last.iter().find(|(old, _)| *old == path).cloned());
                    failed.push((path, error));
                }
            }
        }
        failures = failed;
        if first || fresh != last {
            let pods = fresh.iter().map(|(_, pod)| pod.clone()).collect();
            if inputs.send(Input::Static(pods)).await.is_err() {
                return;
            }
            (last, first) = (fresh, false);
        }
        tokio::time::sleep(PERIOD).await;
    }
}

fn manifests(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> =
        entries.map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    paths.retain(|path| {
        !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'))
    });
    paths.sort();
    paths
}

fn load(path: &Path, node: &str) -> Result<StaticPod, String> {
    if std::fs::metadata(path).map_err(|e| e.to_string())?.len() > MAX_MANIFEST {
        return Err(format!("it exceeds {MAX_MANIFEST} bytes"));
    }
    StaticPod::new(&std::fs::read(path).map_err(|e| e.to_string())?, node, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifest_becomes_a_pod_of_this_node() {
        let text = b"apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: a, image: i}]}\n";
        let got = StaticPod::new(text, "n1", Path::new("/m/web.yaml")).unwrap();
        assert_eq!(got.pod.full_name(), "default/web-n1");
        assert!(got.pod.is_static() && !got.pod.is_mirror());
        let mirror = got.mirror();
        assert_eq!(mirror["metadata"]["annotations"][MIRROR], got.pod.uid());
        assert!(mirror["metadata"].get("uid").is_none());
        let other = StaticPod::new(text, "n2", Path::new("/m/web.yaml")).unwrap();
        assert_ne!(other.pod.uid(), got.pod.uid());
        for bad in [
            &b"x"[..],
            b"{}",
            b"apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n",
            b"\xff\xfe",
            b"kind: Service",
        ] {
            assert!(StaticPod::new(bad, "n1", Path::new("/m")).is_err());
        }
    }
}

//! Labels, annotations and paths by which a runtime's objects are recognised as parts of a pod. They are
//! kubelet's, so that either can take over from the other and crictl shows the pod's name.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::kube::{Container, Pod};

/// Label: name of the pod.
pub const POD_NAME: &str = "io.kubernetes.pod.name";
/// Label: namespace of the pod.
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// Label: uid of the pod.
pub const POD_UID: &str = "io.kubernetes.pod.uid";
/// Label: name of the container in its pod.
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// Annotation: hash of what cannot change without a restart.
pub const CONTAINER_HASH: &str = "io.kubernetes.container.hash";
/// Annotation: how often the container was restarted before this run.
pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
/// Annotation: where the container writes its last words.
pub const TERMINATION_PATH: &str = "io.kubernetes.container.terminationMessagePath";
/// Annotation: `File` or `FallbackToLogsOnError`.
pub const TERMINATION_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
/// Annotation: seconds the pod may take to end.
pub const GRACE_PERIOD: &str = "io.kubernetes.pod.terminationGracePeriod";

const HASH_BYTES: usize = 8;

/// Labels of a pod's sandbox: the pod's own and the three that name it.
pub fn pod_labels(pod: &Pod) -> BTreeMap<String, String> {
    let mut labels = pod.metadata.labels.clone();
    labels.extend(identity(pod));
    labels
}

/// Labels of a container.
pub fn container_labels(pod: &Pod, container: &str) -> BTreeMap<String, String> {
    let mut labels = identity(pod);
    labels.insert(CONTAINER_NAME.to_owned(), container.to_owned());
    labels
}

fn identity(pod: &Pod) -> BTreeMap<String, String> {
    [
        (POD_NAME, &pod.metadata.name),
        (POD_NAMESPACE, &pod.metadata.namespace),
        (POD_UID, &pod.metadata.uid),
    ]
    .map(|(name, value)| (name.to_owned(), value.clone()))
    .into()
}

/// Hash of the parts of a container that a running one must match; name and image, as kubelet does since 1.31.
pub fn container_hash(container: &Container) -> String {
    let digest = Sha256::digest(format!("{}\n{}", container.name, container.image));
    hex::encode(&digest[..HASH_BYTES])
}

/// Whether a run with this hash runs what `container` asks for. A hash of another make, kubelet's, is shorter and
/// says nothing: its run is taken as it is.
pub fn hash_fits(container: &Container, hash: &str) -> bool {
    hash.len() != 2 * HASH_BYTES || hash == container_hash(container)
}

/// Folder of a pod's logs below the log root.
pub fn log_folder(namespace: &str, name: &str, uid: &str) -> String {
    format!("{namespace}_{name}_{uid}")
}

/// Log file of one run, relative to the pod's folder.
pub fn log_file(container: &str, attempt: u32) -> String {
    format!("{container}/{attempt}.log")
}

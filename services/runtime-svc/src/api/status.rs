//! What the runtime says about itself.

use std::collections::HashMap;

use flotilla_proto::cri::runtime::v1 as cri;

/// What the service says about itself.
#[derive(Debug, Clone)]
pub struct About {
    /// Range of the pods' addresses.
    pub pod_cidr: String,
    /// Name of the bridge.
    pub bridge: String,
    /// Where images come from.
    pub image_endpoint: String,
    /// Snapshotter there.
    pub snapshotter: String,
}

/// The status: ready, and able to give pods a network.
pub(super) fn status(about: &About, verbose: bool) -> cri::StatusResponse {
    let condition = |name: &str| cri::RuntimeCondition {
        r#type: name.to_owned(),
        status: true,
        ..Default::default()
    };
    // Bind mounts are made with mount_setattr, which can recurse.
    let features =
        cri::RuntimeHandlerFeatures { recursive_read_only_mounts: true, user_namespaces: false };
    let handler =
        |name: &str| cri::RuntimeHandler { name: name.to_owned(), features: Some(features) };
    let mut info = HashMap::new();
    if verbose {
        let config = serde_json::json!({
            "podCIDR": about.pod_cidr,
            "bridge": about.bridge,
            "imageEndpoint": about.image_endpoint,
            "snapshotter": about.snapshotter,
            "cgroupDriver": "cgroupfs",
        });
        info.insert("config".to_owned(), config.to_string());
    }
    cri::StatusResponse {
        status: Some(cri::RuntimeStatus {
            conditions: vec![condition("RuntimeReady"), condition("NetworkReady")],
        }),
        info,
        runtime_handlers: vec![handler(""), handler("default")],
        features: Some(cri::RuntimeFeatures {
            supplemental_groups_policy: true,
            user_namespaces_host_network: false,
        }),
    }
}

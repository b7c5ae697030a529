//! The kinds the API serves.

use flotilla_kube_client::Client;
use serde::Deserialize;

use crate::Error;
use crate::cache::{Kind, KindInfo};

/// One kind as discovery describes it.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
#[derive(Default)]
pub struct Resource {
    /// Plural name; with a slash it is a subresource.
    pub name: String,
    kind: String,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// What can be done.
    pub verbs: Vec<String>,
    /// Group and version.
    #[serde(skip)]
    pub api_version: String,
}

#[derive(Deserialize)]
struct Groups {
    #[serde(default)]
    groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    preferred_version: Version,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    group_version: String,
}

#[derive(Deserialize)]
struct Resources {
    #[serde(default)]
    resources: Vec<Resource>,
}

impl Resource {
    /// Kind of the objects.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// A kind that lives as long as the process.
    pub(super) fn leak(&self) -> Kind {
        let text = |s: &str| -> &'static str { Box::leak(s.to_owned().into_boxed_str()) };
        Box::leak(Box::new(KindInfo {
            api_version: text(&self.api_version),
            kind: text(&self.kind),
            plural: text(&self.name),
            namespaced: self.namespaced,
        }))
    }

    /// Path of the collection in one namespace.
    pub fn collection(&self, namespace: &str) -> String {
        let root = if self.api_version.contains('/') { "/apis" } else { "/api" };
        format!("{root}/{}/namespaces/{namespace}/{}", self.api_version, self.name)
    }
}

/// Every kind the API serves, in the preferred version of its group, without subresources. A group whose
/// server does not answer is left out.
///
/// # Errors
/// When the core kinds or the list of groups cannot be read.
pub async fn discover(client: &Client) -> Result<Vec<Resource>, Error> {
    let mut all = resources(client, "/api/v1", "v1").await?;
    let groups: Groups = client.get("/apis").await?;
    for group in groups.groups {
        let version = group.preferred_version.group_version;
        match resources(client, &format!("/apis/{version}"), &version).await {
            Ok(more) => all.extend(more),
            Err(error) => tracing::warn!(version, %error, "cannot read a group's kinds"),
        }
    }
    Ok(all)
}

async fn resources(client: &Client, path: &str, version: &str) -> Result<Vec<Resource>, Error> {
    let list: Resources = client.get(path).await?;
    let mut kinds: Vec<Resource> =
        list.resources.into_iter().filter(|r| !r.name.contains('/')).collect();
    kinds.iter_mut().for_each(|r| version.clone_into(&mut r.api_version));
    Ok(kinds)
}

//! Getting a container's image onto the node.

use std::time::Duration;

use flotilla_proto::cri::runtime::v1 as cri;

use super::agent::Agent;
use crate::engine::backoff::Backoff;
use crate::engine::image::{PullPolicy, normalise, pull_policy};
use crate::engine::kube::{Container, Pod};
use crate::engine::time;
use crate::remote::credentials;
use crate::remote::cri::LocalImage;

/// Why there is no image: the waiting reason and its message.
pub type Failure = (&'static str, String);

/// Makes sure the container's image is on the node.
///
/// # Errors
/// The container's waiting reason and message.
pub async fn ensure(
    agent: &Agent,
    pod: &Pod,
    container: &Container,
    sandbox: &cri::PodSandboxConfig,
    backoff: &mut Backoff,
) -> Result<LocalImage, Failure> {
    let event = |warning: bool, reason: &'static str, text: String| {
        agent.recorder.pod(pod, Some(&container.name), warning, reason, text)
    };
    let image = &container.image;
    let Some(reference) = normalise(image) else {
        let text = format!(
            "Failed to apply default image tag \"{image}\": couldn't parse image name \"{image}\": invalid reference format"
        );
        event(true, "InspectFailed", text.clone());
        return Err(("InvalidImageName", text));
    };
    let present = agent.cri.image(&reference).await.map_err(|status| {
        let text = format!("Failed to inspect image \"{image}\": {}", status.message());
        event(true, "InspectFailed", text.clone());
        ("ImageInspectError", text)
    })?;
    match (pull_policy(&container.image_pull_policy, image), present) {
        (PullPolicy::Never | PullPolicy::IfNotPresent, Some(present)) => {
            event(
                false,
                "Pulled",
                format!("Container image \"{image}\" already present on machine"),
            );
            return Ok(present);
        }
        (PullPolicy::Never, None) => {
            let text =
                format!("Container image \"{image}\" is not present with pull policy of Never");
            event(true, "ErrImageNeverPull", text.clone());
            return Err(("ErrImageNeverPull", text));
        }
        _ => {}
    }
    let key = format!("{}_{image}", pod.uid());
    let last = backoff.last(&key).unwrap_or(0);
    if backoff.blocked_until(&key, last, time::now()).is_some() {
        let text = format!("Back-off pulling image \"{image}\"");
        event(false, "BackOff", text.clone());
        return Err(("ImagePullBackOff", text));
    }
    event(false, "Pulling", format!("Pulling image \"{image}\""));
    let started = time::now();
    match pull(agent, pod, &reference, sandbox).await {
        Ok(pulled) => {
            backoff.reset(&key);
            let took = flotilla_config::format_duration(Duration::from_millis(
                u64::try_from((time::now() - started) / 1_000_000).unwrap_or(0),
            ));
            event(false, "Pulled", format!("Successfully pulled image \"{image}\" in {took}"));
            Ok(pulled)
        }
        Err(status) => {
            backoff.next(&key, time::now());
            let text = format!("Failed to pull image \"{image}\": {}", status.message());
            event(true, "Failed", text);
            event(true, "Failed", "Error: ErrImagePull".to_owned());
            Err(("ErrImagePull", status.message().to_owned()))
        }
    }
}

/// Tries each credential of the pod that fits, then none.
async fn pull(
    agent: &Agent,
    pod: &Pod,
    reference: &str,
    sandbox: &cri::PodSandboxConfig,
) -> Result<LocalImage, tonic::Status> {
    let _slot = agent.pulls.acquire().await;
    let mut auths = Vec::new();
    for secret in &pod.spec.image_pull_secrets {
        match agent.api.secret(&pod.metadata.namespace, &secret.name).await {
            Ok(Some(data)) => auths.extend(credentials::matching(&data, reference)),
            Ok(None) => agent.recorder.pod(pod, None, true, "FailedToRetrieveImagePullSecret", format!("Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.", secret.name)),
            Err(error) => return Err(tonic::Status::unavailable(format!("image pull secret {}: {error}", secret.name))),
        }
    }
    let mut tries: Vec<Option<cri::AuthConfig>> = auths.into_iter().map(Some).collect();
    if tries.is_empty() {
        tries.push(None);
    }
    let mut failure = tonic::Status::internal("no pull was tried");
    for auth in tries {
        match agent.cri.pull(reference, auth, sandbox.clone()).await {
            Ok(id) => {
                let known = agent.cri.image(reference).await?;
                return Ok(known.unwrap_or(LocalImage { id, ..LocalImage::default() }));
            }
            Err(status) => failure = status,
        }
    }
    Err(failure)
}

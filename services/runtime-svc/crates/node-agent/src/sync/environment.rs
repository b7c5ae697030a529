//! Gathers what a container's environment refers to.

use std::collections::BTreeSet;
use std::time::Duration;

use super::agent::Agent;
use crate::engine::env::{EnvInput, Sources, environment};
use crate::engine::kube::{Container, Pod};

const SERVICES_WAIT: Duration = Duration::from_secs(10);

/// The container's variables in order.
///
/// # Errors
/// When something is missing or the API server does not answer; the text is the waiting message.
pub async fn variables(
    agent: &Agent,
    pod: &Pod,
    container: &Container,
    pod_ips: &[String],
) -> Result<Vec<(String, String)>, String> {
    let sources = sources(agent, pod, container).await?;
    let mut known = agent.services.subscribe();
    let services = tokio::time::timeout(SERVICES_WAIT, known.wait_for(Option::is_some)).await;
    let services = match services {
        Ok(Ok(services)) => services.clone().unwrap_or_default(),
        _ => {
            return Err("services have not yet been read at least once, cannot construct envvars"
                .to_owned());
        }
    };
    let node = agent.node_facts();
    environment(&EnvInput {
        pod,
        container,
        services: &services,
        sources: &sources,
        node: &node,
        pod_ips,
    })
}

async fn sources(agent: &Agent, pod: &Pod, container: &Container) -> Result<Sources, String> {
    let (mut maps, mut secrets) = (BTreeSet::new(), BTreeSet::new());
    for from in &container.env_from {
        maps.extend(from.config_map_ref.as_ref().map(|r| r.name.clone()));
        secrets.extend(from.secret_ref.as_ref().map(|r| r.name.clone()));
    }
    for from in container.env.iter().filter_map(|variable| variable.value_from.as_ref()) {
        maps.extend(from.config_map_key_ref.as_ref().map(|r| r.name.clone()));
        secrets.extend(from.secret_key_ref.as_ref().map(|r| r.name.clone()));
    }
    let namespace = &pod.metadata.namespace;
    let mut sources = Sources::default();
    for name in maps {
        let data = agent.api.config_map(namespace, &name).await.map_err(|e| e.to_string())?;
        sources.config_maps.extend(data.map(|data| (name, data)));
    }
    for name in secrets {
        let data = agent.api.secret(namespace, &name).await.map_err(|e| e.to_string())?;
        sources.secrets.extend(data.map(|data| (name, data)));
    }
    Ok(sources)
}

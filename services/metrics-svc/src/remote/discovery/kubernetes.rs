//! `kubernetes_sd_configs`: follows objects and turns them into groups whenever they change.

use std::collections::BTreeMap;
use std::time::Duration;

use flotilla_kube_client::{Change as ObjectChange, Client, KubeConfig, ListParams, Reflector};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::kube_roles::{Objects, groups};
use super::{Change, Group};
use crate::config::{KubernetesSdConfig, Role};

/// How long changes are collected before groups are made.
const SETTLE: Duration = Duration::from_millis(100);

/// Pause between attempts to make a client.
const RETRY: Duration = Duration::from_secs(2);

/// The kinds a section may follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Node,
    Pod,
    Service,
    Endpoints,
    EndpointSlice,
    Ingress,
}

impl Kind {
    fn path(self) -> (&'static str, &'static str) {
        match self {
            Self::Node => ("/api/v1", "nodes"),
            Self::Pod => ("/api/v1", "pods"),
            Self::Service => ("/api/v1", "services"),
            Self::Endpoints => ("/api/v1", "endpoints"),
            Self::EndpointSlice => ("/apis/discovery.k8s.io/v1", "endpointslices"),
            Self::Ingress => ("/apis/networking.k8s.io/v1", "ingresses"),
        }
    }

    fn role(self) -> Role {
        match self {
            Self::Node => Role::Node,
            Self::Pod => Role::Pod,
            Self::Service => Role::Service,
            Self::Endpoints => Role::Endpoints,
            Self::EndpointSlice => Role::EndpointSlice,
            Self::Ingress => Role::Ingress,
        }
    }
}

fn kinds(config: &KubernetesSdConfig) -> Vec<Kind> {
    let mut kinds = match config.role {
        Role::Node => vec![Kind::Node],
        Role::Pod => vec![Kind::Pod],
        Role::Service => vec![Kind::Service],
        Role::Endpoints => vec![Kind::Endpoints, Kind::Service, Kind::Pod],
        Role::EndpointSlice => vec![Kind::EndpointSlice, Kind::Service, Kind::Pod],
        Role::Ingress => vec![Kind::Ingress],
    };
    if config.attach_metadata.node && !kinds.contains(&Kind::Node) {
        kinds.push(Kind::Node);
    }
    kinds
}

/// A client for a section.
///
/// # Errors
/// Names the file or setting that cannot be used.
fn client(config: &KubernetesSdConfig) -> Result<Client, String> {
    let read = |path: &std::path::Path| {
        std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))
    };
    let kube = if let Some(path) = &config.kubeconfig_file {
        KubeConfig::from_file(path).map_err(|e| e.to_string())?
    } else if let Some(server) = &config.api_server {
        let tls = &config.http.tls_config;
        let ca = match (&tls.ca, &tls.ca_file) {
            (Some(text), _) => Some(text.clone().into_bytes()),
            (None, Some(path)) => Some(read(path)?),
            (None, None) => super::super::ca_bundle::read(),
        };
        let token = match &config.http.authorization {
            Some(auth) => match (&auth.credentials, &auth.credentials_file) {
                (Some(token), _) => Some(token.0.clone()),
                (None, Some(path)) => Some(String::from_utf8_lossy(&read(path)?).trim().to_owned()),
                (None, None) => None,
            },
            None => None,
        };
        let client_cert = match (&tls.cert_file, &tls.key_file) {
            (Some(cert), Some(key)) => Some((read(cert)?, read(key)?)),
            _ => None,
        };
        let server = server.trim_end_matches('/').to_owned();
        KubeConfig { server, ca, insecure: tls.insecure_skip_verify, token, client_cert }
    } else {
        KubeConfig::in_cluster().map_err(|e| e.to_string())?
    };
    Client::new(kube, concat!("metrics-svc/", env!("CARGO_PKG_VERSION"))).map_err(|e| e.to_string())
}

type Event = (Kind, usize, ObjectChange<Value>);

pub(super) async fn run(
    number: usize,
    config: KubernetesSdConfig,
    sender: mpsc::Sender<Change>,
    stop: CancellationToken,
) {
    // The kubeconfig may be written after this process starts, so a missing one is waited for.
    let client = loop {
        match client(&config) {
            Ok(client) => break client,
            Err(error) => tracing::error!(error, "kubernetes discovery cannot start yet"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(RETRY) => {}
        }
    };
    let (events, mut incoming) = mpsc::channel::<Event>(256);
    let mut namespaces = config.namespaces.names.clone();
    if config.namespaces.own_namespace {
        let path = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";
        namespaces.push(
            std::fs::read_to_string(path)
                .map_or_else(|_| "default".to_owned(), |n| n.trim().to_owned()),
        );
    }
    for kind in kinds(&config) {
        let (base, plural) = kind.path();
        let everywhere = namespaces.is_empty() || kind == Kind::Node;
        let paths: Vec<String> = if everywhere {
            vec![format!("{base}/{plural}")]
        } else {
            namespaces.iter().map(|ns| format!("{base}/namespaces/{ns}/{plural}")).collect()
        };
        let selector = config.selectors.iter().find(|s| s.role == kind.role());
        let params = ListParams {
            label_selector: selector.and_then(|s| s.label.clone()),
            field_selector: selector.and_then(|s| s.field.clone()),
            ..ListParams::default()
        };
        for (scope, path) in paths.into_iter().enumerate() {
            let reflector = Reflector::new(client.clone(), path, params.clone());
            tokio::spawn(follow(reflector, kind, scope, events.clone(), stop.clone()));
        }
    }
    drop(events);
    let mut objects = Objects::default();
    let mut sent: Option<Vec<Group>> = None;
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return,
            event = incoming.recv() => event,
        };
        let Some(event) = event else { return };
        apply(&mut objects, event);
        tokio::time::sleep(SETTLE).await;
        while let Ok(event) = incoming.try_recv() {
            apply(&mut objects, event);
        }
        let made = groups(config.role, &objects, config.attach_metadata.node);
        if sent.as_ref() != Some(&made) {
            if sender.send((number, made.clone())).await.is_err() {
                return;
            }
            sent = Some(made);
        }
    }
}

async fn follow(
    mut reflector: Reflector<Value>,
    kind: Kind,
    scope: usize,
    events: mpsc::Sender<Event>,
    stop: CancellationToken,
) {
    loop {
        let change = tokio::select! {
            () = stop.cancelled() => return,
            change = reflector.next() => change,
        };
        if events.send((kind, scope, change)).await.is_err() {
            return;
        }
    }
}

fn apply(objects: &mut Objects, (kind, scope, change): Event) {
    let store: &mut BTreeMap<(String, String), (usize, Value)> = objects.of(kind);
    let key = |object: &Value| {
        let text = |name: &str| object["metadata"][name].as_str().unwrap_or_default().to_owned();
        (text("namespace"), text("name"))
    };
    match change {
        ObjectChange::Replaced(all) => {
            store.retain(|_, (from, _)| *from != scope);
            store.extend(all.into_iter().map(|object| (key(&object), (scope, object))));
        }
        ObjectChange::Applied(object) => drop(store.insert(key(&object), (scope, object))),
        ObjectChange::Deleted(object) => drop(store.remove(&key(&object))),
    }
}

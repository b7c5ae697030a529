//! Compiles server blocks into sites.

use std::sync::Arc;

use flotilla_config::ExitError;
use flotilla_kube_client::{Client, KubeConfig};

use crate::corefile::Scheme;
use crate::engine::kubernetes::{PodsMode, Store};
use crate::engine::{Backend, Cache, Errors, Hosts, Kubernetes, LoopGuard, Site, ZoneFiles, Zones};
use crate::metrics::{Metrics, SiteMetrics};
use crate::plan::{Block, KubernetesSettings};
use crate::remote::{Forward, Tasks, follow};
use crate::store::{follow_directory, follow_file};

const NAMESPACES_SERVICES: u8 = 1 | 2;
const SLICES: u8 = 4;
const PODS: u8 = 8;

/// One block compiled.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// What the block said; a block that says the same after a reload is kept with its caches and watches.
    pub said: String,
    /// Its sites, each with its port.
    pub sites: Vec<(u16, Arc<Site>)>,
    /// The store of a cluster, and what it has to know to be ready.
    pub store: Option<(Arc<Store>, u8)>,
    /// The loop test to run.
    pub guard: Option<Arc<LoopGuard>>,
    /// Followers of the cluster; they end with the block.
    pub _tasks: Option<Arc<Tasks>>,
    /// What reads zone files again.
    pub files: Arc<Tasks>,
}

/// Compiles one block: its plugins are shared by all of its zones.
///
/// # Errors
/// When a kubeconfig cannot be read.
pub fn compile(block: &Block, metrics: &Metrics) -> Result<Compiled, ExitError> {
    let mut compiled = Compiled {
        said: format!("{block:?}"),
        sites: Vec::new(),
        store: None,
        guard: None,
        _tasks: None,
        files: Arc::default(),
    };
    let kubernetes = match &block.kubernetes {
        Some(settings) => Some(kubernetes(settings, &mut compiled)?),
        None => None,
    };
    if block.loop_test
        && let Some(key) = block.keys.first()
    {
        compiled.guard = Some(Arc::new(LoopGuard::new(&key.zone)));
    }
    let zones = zone_files(block, &mut compiled.files)?;
    let errors = block.errors.clone().map(|rules| Arc::new(Errors::new(rules)));
    for key in &block.keys {
        let Scheme::Dns = key.scheme;
        let server = format!("dns://:{}", key.port);
        let mut backends = Vec::new();
        backends.extend(
            block
                .hosts
                .as_ref()
                .map(|(text, ttl, pass)| Backend::Hosts(Hosts::new(text, *ttl, *pass))),
        );
        backends.extend(kubernetes.clone().map(Backend::Kubernetes));
        backends.extend(zones.iter().map(|make| Backend::Zones(make())));
        backends.extend(compiled.guard.clone().map(Backend::Loop));
        backends
            .extend(block.forward.clone().map(|options| Backend::Forward(Forward::new(options))));
        backends.extend(block.whoami.then_some(Backend::Whoami));
        let site = Site {
            zone: key.zone.clone(),
            backends,
            cache: block.cache.clone().map(Cache::new),
            errors: errors.clone(),
            log: block.log.clone(),
            wrappers: block.wrappers.clone(),
            any_class: block.wrappers.chaos.is_some() || block.forward.is_some(),
            metrics: SiteMetrics::new(
                metrics,
                &server,
                &key.zone.to_string(),
                block.prometheus.is_some(),
            ),
        };
        compiled.sites.push((key.port, Arc::new(site)));
    }
    Ok(compiled)
}

type MakeZones = Box<dyn Fn() -> ZoneFiles>;

/// The plugins `file` and `auto`; every zone of the block gets one over the same records.
fn zone_files(block: &Block, tasks: &mut Arc<Tasks>) -> Result<Vec<MakeZones>, ExitError> {
    let mut list: Vec<MakeZones> = Vec::new();
    let mut handles = Vec::new();
    for options in &block.files {
        let zones = Arc::new(Zones::default());
        handles.extend(follow_file(options, &zones).map_err(ExitError::config)?);
        let fall = options.fallthrough.clone();
        list.push(Box::new(move || {
            ZoneFiles::new("file", zones.clone(), Vec::new(), fall.clone())
        }));
    }
    if let Some(options) = block.auto.clone() {
        let zones = Arc::new(Zones::default());
        handles.extend(follow_directory(&options, &zones));
        list.push(Box::new(move || {
            ZoneFiles::new(
                "auto",
                zones.clone(),
                options.zones.clone(),
                options.fallthrough.clone(),
            )
        }));
    }
    *tasks = Arc::new(Tasks::new(handles));
    Ok(list)
}

fn kubernetes(
    settings: &KubernetesSettings,
    compiled: &mut Compiled,
) -> Result<Arc<Kubernetes>, ExitError> {
    let config = match (&settings.kubeconfig, &settings.endpoint) {
        (Some(file), _) => KubeConfig::from_file(file).map_err(ExitError::config)?,
        (None, Some(url)) => KubeConfig::plain(url),
        (None, None) => KubeConfig::in_cluster().map_err(ExitError::config)?,
    };
    let client = Client::new(config, "dns-svc").map_err(ExitError::config)?;
    let store = Arc::new(Store::default());
    compiled._tasks = Some(Arc::new(follow(&client, &settings.watch, &store)));
    let mut wanted = NAMESPACES_SERVICES;
    wanted |= if settings.watch.endpoints { SLICES } else { 0 };
    wanted |= if settings.options.pods == PodsMode::Verified { PODS } else { 0 };
    compiled.store = Some((store.clone(), wanted));
    Ok(Arc::new(Kubernetes::new(settings.options.clone(), store)))
}

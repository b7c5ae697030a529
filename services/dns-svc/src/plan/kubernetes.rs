//! `kubernetes [ZONES...] { options }`.

use std::path::PathBuf;

use crate::corefile::{Directive, ParseError, ServerKey};
use crate::engine::kubernetes::{Options, PodsMode};
use crate::remote::WatchOptions;
use crate::wire::Name;

/// Largest TTL CoreDNS accepts here.
const MAX_TTL: u32 = 3600;

/// Settings of the plugin and of its connection.
#[derive(Debug, Clone)]
pub struct KubernetesSettings {
    /// How names are answered.
    pub options: Options,
    /// What is followed.
    pub watch: WatchOptions,
    /// Kubeconfig file, if not in a cluster.
    pub kubeconfig: Option<PathBuf>,
    /// URL of an API server without credentials.
    pub endpoint: Option<String>,
}

/// Reads the directive; without zones the block's own are served.
pub fn read(directive: &Directive, keys: &[ServerKey]) -> Result<KubernetesSettings, ParseError> {
    let parse = |text: &str| {
        crate::corefile::reverse_zone(text)
            .map_or_else(|| Name::parse(text), Ok)
            .map(|name| name.to_lowercase())
    };
    let zones: Result<Vec<Name>, String> = match directive.words().as_slice() {
        [] => Ok(keys.iter().map(|key| key.zone.clone()).collect()),
        words => words.iter().map(|word| parse(word)).collect(),
    };
    let options = Options {
        zones: zones.map_err(|e| directive.error(e))?,
        ttl: 5,
        pods: PodsMode::Disabled,
        fallthrough: Vec::new(),
        endpoint_pod_names: false,
        namespaces: Vec::new(),
    };
    let watch = WatchOptions { endpoints: true, ..WatchOptions::default() };
    let mut settings = KubernetesSettings { options, watch, kubeconfig: None, endpoint: None };
    for option in &directive.block {
        read_option(option, &mut settings, &parse)?;
    }
    Ok(settings)
}

fn read_option(
    option: &Directive,
    settings: &mut KubernetesSettings,
    parse: &impl Fn(&str) -> Result<Name, String>,
) -> Result<(), ParseError> {
    let words = option.words();
    match (option.name.text.as_str(), words.as_slice()) {
        ("pods", ["disabled"]) => settings.options.pods = PodsMode::Disabled,
        ("pods", ["insecure"]) => settings.options.pods = PodsMode::Insecure,
        ("pods", ["verified"]) => {
            settings.options.pods = PodsMode::Verified;
            settings.watch.pods = true;
        }
        ("pods", _) => {
            return Err(
                option.error("kubernetes: pods must be one of: disabled, insecure, verified")
            );
        }
        ("fallthrough", []) => settings.options.fallthrough = vec![Name::root()],
        ("fallthrough", zones) => {
            let zones: Result<Vec<Name>, String> = zones.iter().map(|zone| parse(zone)).collect();
            settings.options.fallthrough = zones.map_err(|e| option.error(e))?;
        }
        ("ttl", [text]) => {
            let ttl: u32 = text
                .parse()
                .map_err(|_| option.error(format!("kubernetes: {text:?} is no TTL")))?;
            if ttl > MAX_TTL {
                return Err(option.error(format!("ttl must be in range [0, 3600]: {ttl}")));
            }
            settings.options.ttl = ttl;
        }
        ("endpoint_pod_names", []) => settings.options.endpoint_pod_names = true,
        ("noendpoints", []) => settings.watch.endpoints = false,
        ("namespaces", names @ [_, ..]) => {
            settings.options.namespaces = names.iter().map(|name| (*name).to_owned()).collect()
        }
        ("labels", [_, ..]) => settings.watch.labels = Some(words.join(" ")),
        ("namespace_labels", [_, ..]) => settings.watch.namespace_labels = Some(words.join(" ")),
        ("kubeconfig", [file]) => settings.kubeconfig = Some(file.into()),
        ("endpoint", [url]) => settings.endpoint = Some((*url).to_owned()),
        (name, _) => {
            return Err(option.error(format!(
                "not supported yet: kubernetes {}",
                [&[name], words.as_slice()].concat().join(" ")
            )));
        }
    }
    Ok(())
}

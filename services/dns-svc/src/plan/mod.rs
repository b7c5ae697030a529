//! What a Corefile means: server blocks as typed settings, checked whole before anything is bound.

mod directives;
mod files;
mod kubernetes;
mod logging;
mod wrappers;

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

pub use kubernetes::KubernetesSettings;
pub use logging::Reload;
use sha2::{Digest, Sha512};

use crate::corefile::{Directive, ParseError, ServerBlock, ServerKey, parse};
use crate::engine::{CacheConfig, Consolidate, LogRule, Wrappers};
use crate::remote::ForwardOptions;
use crate::store::{AutoOptions, FileOptions};

/// The plugins of this build in the order they act, a subsequence of CoreDNS's plugin.cfg.
pub const PLUGINS: &[&str] = &[
    "reload",
    "bufsize",
    "bind",
    "ready",
    "health",
    "prometheus",
    "errors",
    "log",
    "admin",
    "any",
    "chaos",
    "loadbalance",
    "rewrite",
    "acl",
    "cache",
    "header",
    "minimal",
    "hosts",
    "kubernetes",
    "file",
    "auto",
    "loop",
    "forward",
    "whoami",
];

/// Plugins of CoreDNS that this build does not have, to tell a gap from a typing error.
const OTHERS: &[&str] = &[
    "root",
    "metadata",
    "geoip",
    "cancel",
    "proxyproto",
    "quic",
    "grpc_server",
    "https",
    "https3",
    "timeouts",
    "multisocket",
    "nsid",
    "debug",
    "trace",
    "pprof",
    "shed",
    "dnstap",
    "local",
    "dns64",
    "tsig",
    "autopath",
    "dnssec",
    "tls",
    "template",
    "transfer",
    "route53",
    "azure",
    "clouddns",
    "k8s_external",
    "secondary",
    "etcd",
    "grpc",
    "erratic",
    "on",
    "sign",
    "view",
    "nomad",
    "dynupdate",
];

/// One server block.
#[derive(Debug, Clone)]
pub struct Block {
    /// Zones and ports.
    pub keys: Vec<ServerKey>,
    /// Addresses to listen on.
    pub bind: Vec<IpAddr>,
    /// `errors`
    pub errors: Option<Vec<Consolidate>>,
    /// `log`
    pub log: Vec<LogRule>,
    /// `reload`
    pub reload: Option<Reload>,
    /// `loop`
    pub loop_test: bool,
    /// `prometheus ADDRESS`
    pub prometheus: Option<SocketAddr>,
    /// `health ADDRESS`, and how long it goes on answering after the end was asked for.
    pub health: Option<(SocketAddr, std::time::Duration)>,
    /// `ready ADDRESS`
    pub ready: Option<SocketAddr>,
    /// `admin ADDRESS`
    pub admin: Option<SocketAddr>,
    /// `cache`
    pub cache: Option<CacheConfig>,
    /// `hosts`: the lines, TTL, and whether unknown names go on.
    pub hosts: Option<(String, u32, bool)>,
    /// `kubernetes`
    pub kubernetes: Option<KubernetesSettings>,
    /// `file`, one entry a directive.
    pub files: Vec<FileOptions>,
    /// `auto`
    pub auto: Option<AutoOptions>,
    /// The small plugins around the backends.
    pub wrappers: Wrappers,
    /// `forward`
    pub forward: Option<ForwardOptions>,
    /// `whoami`
    pub whoami: bool,
}

/// A checked Corefile.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The server blocks in file order.
    pub blocks: Vec<Block>,
    /// SHA-512 of all words, imports resolved, in hex.
    pub digest: String,
}

impl Plan {
    /// Parses and checks a Corefile. `default_port` is for keys that name none.
    ///
    /// # Errors
    /// The first error with file and line: grammar, unknown plugin, bad option, or a zone served twice.
    pub fn parse(
        file: &str,
        text: &str,
        dir: &Path,
        default_port: u16,
    ) -> Result<Self, ParseError> {
        let env = |name: &str| std::env::var(name).ok();
        let mut blocks = Vec::new();
        let mut served = HashSet::new();
        let parsed = parse(file, text, dir, &env)?;
        for block in &parsed {
            blocks.push(read_block(block, default_port, &mut served)?);
        }
        let digest = Sha512::digest(format!("{parsed:?}"));
        let digest = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { blocks, digest })
    }

    /// What CoreDNS serves when there is no Corefile.
    pub fn builtin(default_port: u16) -> Result<Self, ParseError> {
        Self::parse("builtin", ". {\n    whoami\n    log\n}\n", Path::new("."), default_port)
    }
}

fn read_block(
    block: &ServerBlock,
    default_port: u16,
    served: &mut HashSet<String>,
) -> Result<Block, ParseError> {
    let mut keys = Vec::new();
    for token in &block.keys {
        let key = ServerKey::parse(&token.text, default_port)
            .map_err(|reason| ParseError::at(token, reason))?;
        if !served.insert(format!("{}:{}", key.zone, key.port)) {
            return Err(ParseError::at(
                token,
                format!("cannot serve dns://{}:{} - it is already defined", key.zone, key.port),
            ));
        }
        keys.push(key);
    }
    let mut read = Block {
        keys,
        bind: Vec::new(),
        errors: None,
        log: Vec::new(),
        reload: None,
        loop_test: false,
        prometheus: None,
        health: None,
        ready: None,
        admin: None,
        cache: None,
        hosts: None,
        kubernetes: None,
        files: Vec::new(),
        auto: None,
        wrappers: Wrappers::default(),
        forward: None,
        whoami: false,
    };
    for directive in &block.directives {
        read_directive(directive, &mut read)?;
    }
    if read.bind.is_empty() {
        read.bind.push(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    }
    Ok(read)
}

fn read_directive(directive: &Directive, block: &mut Block) -> Result<(), ParseError> {
    match directive.name.text.as_str() {
        "bind" => block.bind.extend(directives::bind(directive)?),
        "reload" => block.reload = logging::reload(directive)?,
        "loop" => block.loop_test = directives::flag(directive)?,
        "errors" => block.errors = Some(logging::errors(directive)?),
        "log" => block.log.push(logging::log(directive)?),
        "prometheus" => block.prometheus = Some(directives::address(directive, "localhost:9153")?),
        "health" => block.health = Some(directives::health(directive)?),
        "ready" => block.ready = Some(directives::address(directive, ":8181")?),
        "admin" => block.admin = Some(directives::address(directive, "127.0.0.1:9154")?),
        "cache" => block.cache = Some(directives::cache(directive)?),
        "hosts" => block.hosts = Some(directives::hosts(directive)?),
        "kubernetes" => block.kubernetes = Some(kubernetes::read(directive, &block.keys)?),
        "file" => block.files.push(files::file(directive, &block.keys)?),
        "auto" => block.auto = Some(files::auto(directive, &block.keys)?),
        "forward" => block.forward = Some(directives::forward(directive)?),
        "whoami" => block.whoami = directives::flag(directive)?,
        _ if wrappers::read(directive, &block.keys, &mut block.wrappers)? => {}
        other if OTHERS.contains(&other) => {
            return Err(directive.error(format!("not supported yet: {other}")));
        }
        other => return Err(directive.error(format!("Unknown directive '{other}'"))),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> Result<Plan, ParseError> {
        Plan::parse("Corefile", text, Path::new("."), 53)
    }

    #[test]
    fn typical_corefile_is_read() {
        let read = plan(
            ".:1053 {\n bind 127.0.0.1\n errors\n health :8080 {\n lameduck 5s\n }\n ready\n prometheus :9153\n \
             kubernetes cluster.local in-addr.arpa ip6.arpa {\n endpoint http://127.0.0.1:1\n pods insecure\n \
             fallthrough in-addr.arpa ip6.arpa\n ttl 30\n }\n forward . 127.0.0.9 {\n max_concurrent 1000\n }\n \
             cache 30 {\n success 100 60\n }\n loadbalance\n}\n",
        )
        .unwrap();
        let block = &read.blocks[0];
        assert_eq!(block.keys[0].port, 1053);
        assert_eq!(block.cache.as_ref().unwrap().success_capacity, 100);
        assert_eq!(block.kubernetes.as_ref().unwrap().options.zones.len(), 3);
        assert_eq!(block.health.unwrap().1.as_secs(), 5);
    }

    #[test]
    fn mistakes_name_their_line() {
        for (text, line, words) in [
            (". {\n errors\n colour\n}", 3, "Unknown directive 'colour'"),
            (". {\n dnssec\n}", 2, "not supported yet: dnssec"),
            (". {\n cache x\n}", 2, "cache"),
            (". {\n forward .\n}", 2, "forward"),
            (". {\n forward . 1.2.3.4 {\n  colour 1\n }\n}", 3, "colour"),
            (". {\n whoami\n}\n. {\n whoami\n}", 4, "already defined"),
            (". {\n kubernetes cluster.local {\n  pods maybe\n }\n}", 3, "pods"),
        ] {
            let error = plan(text).unwrap_err();
            assert_eq!(error.line, line, "{error}");
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}

//! One function a directive: words in, settings out.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use flotilla_config::{ListenAddr, parse_duration};

use crate::corefile::{Directive, ParseError};
use crate::engine::CacheConfig;
use crate::remote::{ForwardOptions, Policy};
use crate::wire::Name;

const DNS_PORT: u16 = 53;
const MAX_UPSTREAMS: usize = 15;

/// A directive without arguments.
pub fn flag(directive: &Directive) -> Result<bool, ParseError> {
    match (directive.args.first(), directive.block.first()) {
        (None, None) => Ok(true),
        (Some(argument), _) => Err(directive
            .error(format!("not supported yet: {} {}", directive.name.text, argument.text))),
        (None, Some(option)) => Err(option
            .error(format!("not supported yet: {} {}", directive.name.text, option.name.text))),
    }
}

/// `bind ADDRESS...`
pub fn bind(directive: &Directive) -> Result<Vec<IpAddr>, ParseError> {
    if let Some(option) = directive.block.first() {
        return Err(option.error(format!("not supported yet: bind {}", option.name.text)));
    }
    let parse = |word: &&str| {
        word.parse().map_err(|_| directive.error(format!("bind: {word:?} is no IP address")))
    };
    directive.words().iter().map(parse).collect()
}

/// `NAME [ADDRESS]`
pub fn address(directive: &Directive, default: &str) -> Result<SocketAddr, ParseError> {
    let words = directive.words();
    let text = match words.as_slice() {
        [] => default,
        [one] => one,
        _ => return Err(directive.error(format!("{} takes one address", directive.name.text))),
    };
    match text.parse() {
        Ok(ListenAddr::Tcp(address)) => Ok(address),
        _ => Err(directive.error(format!("{}: {text:?} is no address", directive.name.text))),
    }
}

/// `health [ADDRESS] { lameduck DURATION }`
pub fn health(directive: &Directive) -> Result<(SocketAddr, Duration), ParseError> {
    let mut lameduck = Duration::ZERO;
    for option in &directive.block {
        match (option.name.text.as_str(), option.words().as_slice()) {
            ("lameduck", [text]) => {
                lameduck = parse_duration(text).map_err(|e| option.error(e.to_string()))?
            }
            (name, _) => {
                return Err(option.error(format!("health: unknown or incomplete option {name:?}")));
            }
        }
    }
    Ok((address(directive, ":8080")?, lameduck))
}

/// `cache [TTL] { success CAPACITY [TTL] [MINTTL]; denial ...; servfail DURATION }`
pub fn cache(directive: &Directive) -> Result<CacheConfig, ParseError> {
    let mut config = CacheConfig::default();
    if let Some(word) = directive.words().first() {
        let ttl: u32 = word.parse().map_err(|_| {
            directive.error(format!("not supported yet: cache {word}, which is no TTL in seconds"))
        })?;
        config.success_ttl.0 = ttl;
        config.denial_ttl.0 = config.denial_ttl.0.min(ttl);
    }
    for option in &directive.block {
        let words = option.words();
        let number = |index: usize| -> Result<Option<u32>, ParseError> {
            let Some(word) = words.get(index) else { return Ok(None) };
            word.parse()
                .map(Some)
                .map_err(|_| option.error(format!("cache: {word:?} is no number")))
        };
        let name = option.name.text.as_str();
        let (capacity, ttl) = match name {
            "success" => (&mut config.success_capacity, &mut config.success_ttl),
            "denial" => (&mut config.denial_capacity, &mut config.denial_ttl),
            "servfail" => {
                let text = words.first().copied().unwrap_or_default();
                config.servfail = parse_duration(text)
                    .map_err(|e| option.error(e.to_string()))?
                    .min(Duration::from_secs(300));
                continue;
            }
            "prefetch" | "serve_stale" | "disable" | "keepttl" | "serve_stale_policy" => {
                return Err(option.error(format!("not supported yet: cache {name}")));
            }
            _ => return Err(option.error(format!("cache: unknown option {name:?}"))),
        };
        *capacity = number(0)?
            .ok_or_else(|| option.error(format!("cache: {name} needs a capacity")))?
            as usize;
        ttl.0 = number(1)?.unwrap_or(ttl.0);
        ttl.1 = number(2)?.unwrap_or(ttl.1);
    }
    config.success_ttl.1 = config.success_ttl.1.min(config.success_ttl.0);
    config.denial_ttl.1 = config.denial_ttl.1.min(config.denial_ttl.0);
    Ok(config)
}

/// `hosts [FILE] { ADDRESS NAME...; ttl SECONDS; fallthrough }`
pub fn hosts(directive: &Directive) -> Result<(String, u32, bool), ParseError> {
    let (mut ttl, mut fallthrough, mut text) = (3600, false, String::new());
    let words = directive.words();
    let file = match (words.as_slice(), directive.block.is_empty()) {
        ([file], _) => Some(*file),
        ([], true) => Some("/etc/hosts"),
        ([], false) => None,
        _ => return Err(directive.error("not supported yet: hosts with zones")),
    };
    if let Some(file) = file {
        text = std::fs::read_to_string(file)
            .map_err(|e| directive.error(format!("hosts: cannot read {file}: {e}")))?;
    }
    for option in &directive.block {
        match (option.name.text.as_str(), option.words().as_slice()) {
            ("fallthrough", []) => fallthrough = true,
            ("ttl", [seconds]) => {
                ttl = seconds
                    .parse()
                    .map_err(|_| option.error(format!("hosts: {seconds:?} is no TTL")))?
            }
            (ip, names) if ip.parse::<IpAddr>().is_ok() && !names.is_empty() => {
                text.push_str(&format!("\n{ip} {}", names.join(" ")));
            }
            (name, _) => return Err(option.error(format!("not supported yet: hosts {name}"))),
        }
    }
    Ok((text, ttl, fallthrough))
}

/// `forward FROM TO... { options }`
pub fn forward(directive: &Directive) -> Result<ForwardOptions, ParseError> {
    let words = directive.words();
    let [from, to @ ..] = words.as_slice() else {
        return Err(directive.error("forward needs a zone and upstreams"));
    };
    let name = |text: &str| {
        Name::parse(text).map(|name| name.to_lowercase()).map_err(|e| directive.error(e))
    };
    let mut addresses = Vec::new();
    for text in to {
        addresses.extend(upstreams(directive, text)?);
    }
    if addresses.is_empty() || addresses.len() > MAX_UPSTREAMS {
        return Err(directive.error(format!(
            "forward: {} upstreams; 1 to {MAX_UPSTREAMS} are allowed",
            addresses.len()
        )));
    }
    let mut options = ForwardOptions {
        from: name(from)?,
        to: addresses,
        except: Vec::new(),
        policy: Policy::Random,
        max_fails: 2,
        health_check: Duration::from_millis(500),
        force_tcp: false,
        prefer_udp: false,
        max_concurrent: 0,
    };
    for option in &directive.block {
        let number = |text: &str| {
            text.parse().map_err(|_| option.error(format!("forward: {text:?} is no number")))
        };
        match (option.name.text.as_str(), option.words().as_slice()) {
            ("except", zones @ [_, ..]) => {
                for zone in zones {
                    options.except.push(name(zone)?);
                }
            }
            ("policy", ["random"]) => options.policy = Policy::Random,
            ("policy", ["round_robin"]) => options.policy = Policy::RoundRobin,
            ("policy", ["sequential"]) => options.policy = Policy::Sequential,
            ("max_fails", [text]) => options.max_fails = number(text)?,
            ("max_concurrent", [text]) => options.max_concurrent = number(text)? as usize,
            ("health_check", [text]) => {
                options.health_check =
                    parse_duration(text).map_err(|e| option.error(e.to_string()))?
            }
            ("force_tcp", []) => options.force_tcp = true,
            ("prefer_udp", []) => options.prefer_udp = true,
            (name, _) => return Err(option.error(format!("not supported yet: forward {name}"))),
        }
    }
    Ok(options)
}

/// The upstreams of one word: an address, or a file in the form of resolv.conf.
fn upstreams(directive: &Directive, text: &str) -> Result<Vec<SocketAddr>, ParseError> {
    if text.contains("://") {
        return Err(directive.error(format!("not supported yet: forward to {text}")));
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(vec![address]);
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, DNS_PORT)]);
    }
    let file = std::fs::read_to_string(text)
        .map_err(|_| directive.error(format!("forward: not an IP address or file: {text:?}")))?;
    let servers = file
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .filter_map(|rest| rest.trim().parse().ok());
    Ok(servers.map(|ip| SocketAddr::new(ip, DNS_PORT)).collect())
}

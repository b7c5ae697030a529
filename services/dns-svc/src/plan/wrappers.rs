//! `any`, `chaos`, `rewrite`, `acl`, `header`, `minimal`, `loadbalance`, `bufsize`.

use std::net::IpAddr;

use regex::Regex;

use crate::corefile::{Directive, ParseError, ServerKey};
use crate::engine::{AclAction, AclPolicy, Back, Change, NameMatch, RewriteRule, Wrappers};
use crate::wire::Name;
use crate::wire::types::type_number;

/// Reads one of the directives; `false` if it is none of them.
pub fn read(
    directive: &Directive,
    keys: &[ServerKey],
    to: &mut Wrappers,
) -> Result<bool, ParseError> {
    match directive.name.text.as_str() {
        "any" => to.any = super::directives::flag(directive)?,
        "minimal" => to.minimal = super::directives::flag(directive)?,
        "loadbalance" => to.shuffle = loadbalance(directive)?,
        "chaos" => to.chaos = Some(chaos(directive)?),
        "bufsize" => to.bufsize = Some(bufsize(directive)?),
        "header" => to.header.extend(header(directive)?),
        "rewrite" => to.rewrite.push(rewrite(directive)?),
        "acl" => to.acl.push(acl(directive, keys)?),
        _ => return Ok(false),
    }
    Ok(true)
}

fn loadbalance(directive: &Directive) -> Result<bool, ParseError> {
    match (directive.words().as_slice(), directive.block.first()) {
        ([] | ["round_robin"], None) => Ok(true),
        ([other, ..], _) => Err(directive.error(format!("not supported yet: loadbalance {other}"))),
        (_, Some(o)) => Err(o.error(format!("not supported yet: loadbalance {}", o.name.text))),
    }
}

fn chaos(directive: &Directive) -> Result<(String, Vec<String>), ParseError> {
    let words: Vec<String> = directive.words().into_iter().map(str::to_owned).collect();
    match words.split_first() {
        None => Ok((format!("CoreDNS-{}", crate::COREDNS_VERSION), vec!["Flotilla".to_owned()])),
        Some((version, [])) => Ok((version.clone(), vec!["Flotilla".to_owned()])),
        Some((version, authors)) => Ok((version.clone(), authors.to_vec())),
    }
}

fn bufsize(directive: &Directive) -> Result<u16, ParseError> {
    match directive.words().as_slice() {
        [] => Ok(1232),
        [text] => text
            .parse()
            .ok()
            .filter(|size| (512..=4096).contains(size))
            .ok_or_else(|| directive.error("bufsize must be within 512 - 4096")),
        _ => Err(directive.error("bufsize takes one size")),
    }
}

/// `header { response set|clear FLAGS... }`
fn header(directive: &Directive) -> Result<Vec<(u16, u16)>, ParseError> {
    let mut rules = Vec::new();
    for option in &directive.block {
        let words = option.words();
        let ("response", [action @ ("set" | "clear"), flags @ ..]) =
            (option.name.text.as_str(), words.as_slice())
        else {
            return Err(option.error(format!("not supported yet: header {}", option.name.text)));
        };
        for flag in flags {
            let bit = match flag.to_ascii_lowercase().as_str() {
                "aa" => 0x0400,
                "ra" => 0x0080,
                "rd" => return Err(option.error("not supported yet: header response rd")),
                other => return Err(option.error(format!("unknown/unsupported flag={other}"))),
            };
            rules.push(if *action == "set" { (0, bit) } else { (bit, 0) });
        }
    }
    Ok(rules)
}

/// `rewrite [continue|stop] name|type|class ...`
fn rewrite(directive: &Directive) -> Result<RewriteRule, ParseError> {
    if let Some(option) = directive.block.first() {
        return Err(option.error("not supported yet: rewrite with a block"));
    }
    let mut words = directive.words();
    let goes_on = words.first() == Some(&"continue");
    if goes_on || words.first() == Some(&"stop") {
        words.remove(0);
    }
    let number = |text: &str| {
        type_number(text).ok_or_else(|| directive.error(format!("rewrite: invalid type {text:?}")))
    };
    let class = |text: &str| match text.to_ascii_uppercase().as_str() {
        "IN" => Ok(1),
        "CH" => Ok(3),
        "HS" => Ok(4),
        _ => Err(directive.error(format!("rewrite: invalid class {text:?}"))),
    };
    let change = match words.as_slice() {
        ["type", from, to] => Change::Type(number(from)?, number(to)?),
        ["class", from, to] => Change::Class(class(from)?, class(to)?),
        ["name", from, to] => name(directive, "exact", from, to, &[])?,
        ["name", how, from, to, answer @ ..] => name(directive, how, from, to, answer)?,
        [other, ..] => return Err(directive.error(format!("not supported yet: rewrite {other}"))),
        [] => return Err(directive.error("rewrite needs a rule")),
    };
    Ok(RewriteRule { change, goes_on })
}

fn name(
    directive: &Directive,
    how: &str,
    from: &str,
    to: &str,
    answer: &[&str],
) -> Result<Change, ParseError> {
    let lower = |text: &str| text.to_ascii_lowercase();
    let full = |text: &str| format!("{}.", lower(text).trim_end_matches('.'));
    let compile =
        |text: &str| Regex::new(text).map_err(|e| directive.error(format!("rewrite: {e}")));
    // CoreDNS gives every pattern but an expression a final dot: prefix and substring match whole labels' ends.
    let (how, to) = match how.to_ascii_lowercase().as_str() {
        "exact" => (NameMatch::Exact(full(from)), full(to)),
        "suffix" => (NameMatch::Suffix(full(from)), full(to)),
        "prefix" => (NameMatch::Prefix(full(from)), full(to)),
        "substring" => (NameMatch::Substring(full(from)), full(to)),
        "regex" => (NameMatch::Regex(compile(from)?), full(to)),
        other => {
            let text =
                "name rule supports only exact, prefix, suffix, substring, and regex name matching";
            return Err(directive.error(format!("{text}, received: {other}")));
        }
    };
    let (mut auto, mut back, mut rest) = (false, Vec::new(), answer);
    while !rest.is_empty() {
        rest = match rest {
            ["answer", more @ ..] => more,
            ["auto", more @ ..] => {
                auto = true;
                more
            }
            [kind @ ("name" | "value"), from, to, more @ ..] => {
                back.push(Back::Regex(compile(from)?, full(to), *kind == "value"));
                more
            }
            [other, ..] => return Err(directive.error(format!("invalid answer rule {other:?}"))),
            [] => rest,
        };
    }
    Ok(Change::Name(how, to, auto, back))
}

/// `acl [ZONES...] { ACTION [type QTYPE...] [net SOURCE...] }`
fn acl(
    directive: &Directive,
    keys: &[ServerKey],
) -> Result<(Vec<Name>, Vec<AclPolicy>), ParseError> {
    let parse = |text: &&str| {
        Name::parse(text).map(|name| name.to_lowercase()).map_err(|e| directive.error(e))
    };
    let mut zones = directive.words().iter().map(parse).collect::<Result<Vec<_>, _>>()?;
    if zones.is_empty() {
        zones = keys.iter().map(|key| key.zone.clone()).collect();
    }
    let policies = directive.block.iter().map(policy).collect::<Result<_, _>>()?;
    Ok((zones, policies))
}

fn policy(option: &Directive) -> Result<AclPolicy, ParseError> {
    let action = match option.name.text.to_ascii_lowercase().as_str() {
        "allow" => AclAction::Allow,
        "block" => AclAction::Block,
        "filter" => AclAction::Filter,
        "drop" => AclAction::Drop,
        other => {
            let text =
                format!("unexpected token {other:?}; expect 'allow', 'block', 'filter' or 'drop'");
            return Err(option.error(text));
        }
    };
    let mut policy = AclPolicy { action, types: Vec::new(), nets: Vec::new() };
    let mut section = "";
    for word in option.words() {
        match (section, word) {
            (_, "type" | "net") => section = word,
            (_, "*") => {}
            ("type", text) => {
                let number = type_number(text);
                policy.types.push(number.ok_or_else(|| {
                    option.error(format!("unexpected token {text:?}; expect legal QTYPE"))
                })?);
            }
            ("net", text) => policy.nets.push(
                net(text).ok_or_else(|| option.error(format!("illegal CIDR notation {text:?}")))?,
            ),
            (_, text) => {
                let text = format!("unexpected token {text:?}; expect 'type' or 'net'");
                return Err(option.error(text));
            }
        }
    }
    Ok(policy)
}

fn net(text: &str) -> Option<(IpAddr, u8)> {
    let (ip, prefix) = text.split_once('/').map_or((text, None), |(ip, prefix)| (ip, Some(prefix)));
    let ip: IpAddr = ip.parse().ok()?;
    let most = if ip.is_ipv4() { 32 } else { 128 };
    let prefix = prefix.map_or(Some(most), |text| text.parse().ok())?;
    (prefix <= most).then_some((ip, prefix))
}

//! Route configurations to route tables.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::{HeaderName, HeaderValue};
use regex::Regex;

use super::headers::{Append, HeaderEdits};
use super::matcher::{HeaderMatch, HeaderTest, MatchedHeader, PathMatch, QueryMatch, StringMatch};
use super::retry::RetryPolicy;
use super::route::{
    Action, ClusterChoice, Forward, HostRewrite, PathRedirect, Redirect, Route, VirtualHost,
};
use super::table::RouteTable;
use crate::bootstrap::{ConfigError, data_source, duration, pb};

/// Envoy's default limit of a request.
const ROUTE_TIMEOUT: Duration = Duration::from_secs(15);
/// Envoy's default of `per_request_buffer_limit_bytes`.
const BUFFER: usize = 1 << 20;

type Result<T> = std::result::Result<T, ConfigError>;

/// Compiles a route configuration.
///
/// # Errors
/// Names the virtual host and route that cannot work.
pub fn compile(config: &pb::route::RouteConfiguration) -> Result<RouteTable> {
    let mut table = RouteTable {
        name: config.name.clone(),
        ignore_port: config.ignore_port_in_host_matching,
        ..RouteTable::default()
    };
    let request = edits(&config.request_headers_to_add, &config.request_headers_to_remove)?;
    let response = edits(&config.response_headers_to_add, &config.response_headers_to_remove)?;
    for host in &config.virtual_hosts {
        let compiled = virtual_host(host, &request, &response)
            .map_err(|e| e.within(&format!("virtual_hosts[{}]", host.name)))?;
        let compiled = Arc::new(compiled);
        if host.domains.is_empty() {
            return Err(ConfigError::invalid(
                format!("virtual_hosts[{}].domains", host.name),
                "at least one is needed",
            ));
        }
        for domain in &host.domains {
            table.hosts.insert(domain, compiled.clone()).map_err(|reason| {
                ConfigError::invalid(format!("virtual_hosts[{}].domains", host.name), reason)
            })?;
        }
    }
    Ok(table)
}

fn virtual_host(
    config: &pb::route::VirtualHost,
    request: &HeaderEdits,
    response: &HeaderEdits,
) -> Result<VirtualHost> {
    let own_request = edits(&config.request_headers_to_add, &config.request_headers_to_remove)?;
    let own_response = edits(&config.response_headers_to_add, &config.response_headers_to_remove)?;
    let retry = config.retry_policy.as_ref().map(retry_policy).transpose()?.map(Arc::new);
    let buffer = config.per_request_buffer_limit_bytes.map_or(BUFFER, |n| n as usize);
    let mut routes = Vec::new();
    for (index, route) in config.routes.iter().enumerate() {
        let compiled = self::route(
            route,
            retry.as_ref(),
            buffer,
            [&own_request, request],
            [&own_response, response],
        );
        routes.push(Arc::new(compiled.map_err(|e| e.within(&format!("routes[{index}]")))?));
    }
    let require_tls = match config.require_tls {
        0 => false,
        2 => true,
        _ => return Err(ConfigError::unsupported("require_tls EXTERNAL_ONLY")),
    };
    Ok(VirtualHost {
        name: config.name.clone(),
        routes,
        require_tls,
        attempt_count: config.include_request_attempt_count,
    })
}

fn route(
    config: &pb::route::Route,
    retry: Option<&Arc<RetryPolicy>>,
    buffer: usize,
    request: [&HeaderEdits; 2],
    response: [&HeaderEdits; 2],
) -> Result<Route> {
    let rule =
        config.r#match.as_ref().ok_or_else(|| ConfigError::invalid("match", "it is missing"))?;
    let stack = |own: HeaderEdits, outer: [&HeaderEdits; 2]| {
        let all = std::iter::once(own).chain(outer.into_iter().cloned());
        all.filter(|edits| !edits.is_empty()).collect()
    };
    let buffer = config.per_request_buffer_limit_bytes.map_or(buffer, |n| n as usize);
    Ok(Route {
        name: config.name.clone(),
        path: path_match(rule)?,
        case_sensitive: rule.case_sensitive.unwrap_or(true),
        headers: rule.headers.iter().map(header_match).collect::<Result<_>>()?,
        query: rule.query_parameters.iter().map(query_match).collect::<Result<_>>()?,
        grpc: rule.grpc.is_some(),
        action: action(config, retry, buffer)?,
        request_edits: stack(
            edits(&config.request_headers_to_add, &config.request_headers_to_remove)?,
            request,
        ),
        response_edits: stack(
            edits(&config.response_headers_to_add, &config.response_headers_to_remove)?,
            response,
        ),
    })
}

fn path_match(rule: &pb::route::RouteMatch) -> Result<PathMatch> {
    use pb::route::route_match::PathSpecifier;
    match &rule.path_specifier {
        Some(PathSpecifier::Prefix(text)) => Ok(PathMatch::Prefix(text.clone())),
        Some(PathSpecifier::Path(text)) => Ok(PathMatch::Exact(text.clone())),
        Some(PathSpecifier::PathSeparatedPrefix(text)) => {
            if text.ends_with('/') || text.contains(['?', '#']) || !text.starts_with('/') {
                let reason =
                    format!("{text:?} must start with / and must not end with / or contain ? or #");
                return Err(ConfigError::invalid("match.path_separated_prefix", reason));
            }
            Ok(PathMatch::Separated(text.clone()))
        }
        Some(PathSpecifier::SafeRegex(regex)) => {
            Ok(PathMatch::Regex(full_regex(&regex.regex, "match.safe_regex")?))
        }
        Some(_) => Err(ConfigError::unsupported("match.path_specifier")),
        None => Err(ConfigError::invalid("match", "a path specifier is missing")),
    }
}

fn full_regex(text: &str, path: &str) -> Result<Regex> {
    Regex::new(&format!("^(?:{text})$"))
        .map_err(|error| ConfigError::invalid(path, error.to_string()))
}

fn string_match(config: &pb::matcher::StringMatcher) -> Result<StringMatch> {
    use pb::matcher::string_matcher::MatchPattern;
    let ignore = config.ignore_case;
    match &config.match_pattern {
        Some(MatchPattern::Exact(text)) => Ok(StringMatch::Exact(text.clone(), ignore)),
        Some(MatchPattern::Prefix(text)) => Ok(StringMatch::Prefix(text.clone(), ignore)),
        Some(MatchPattern::Suffix(text)) => Ok(StringMatch::Suffix(text.clone(), ignore)),
        Some(MatchPattern::Contains(text)) => Ok(StringMatch::Contains(text.clone(), ignore)),
        Some(MatchPattern::SafeRegex(regex)) => {
            Ok(StringMatch::Regex(full_regex(&regex.regex, "string_match")?))
        }
        Some(MatchPattern::Custom(_)) => Err(ConfigError::unsupported("string_match.custom")),
        None => Err(ConfigError::invalid("string_match", "a pattern is missing")),
    }
}

fn header_match(config: &pb::route::HeaderMatcher) -> Result<HeaderMatch> {
    use pb::route::header_matcher::HeaderMatchSpecifier as Spec;
    let name = match config.name.as_str() {
        ":method" => MatchedHeader::Method,
        ":path" => MatchedHeader::Path,
        ":authority" | "host" => MatchedHeader::Authority,
        ":scheme" => MatchedHeader::Scheme,
        name => MatchedHeader::Name(header_name(name)?),
    };
    let test = match &config.header_match_specifier {
        None => HeaderTest::Present(true),
        Some(Spec::PresentMatch(want)) => HeaderTest::Present(*want),
        Some(Spec::StringMatch(matcher)) => HeaderTest::Text(string_match(matcher)?),
        Some(Spec::ExactMatch(text)) => HeaderTest::Text(StringMatch::Exact(text.clone(), false)),
        Some(Spec::PrefixMatch(text)) => HeaderTest::Text(StringMatch::Prefix(text.clone(), false)),
        Some(Spec::SuffixMatch(text)) => HeaderTest::Text(StringMatch::Suffix(text.clone(), false)),
        Some(Spec::ContainsMatch(text)) => {
            HeaderTest::Text(StringMatch::Contains(text.clone(), false))
        }
        Some(Spec::SafeRegexMatch(regex)) => HeaderTest::Text(StringMatch::Regex(full_regex(
            &regex.regex,
            "headers.safe_regex_match",
        )?)),
        Some(Spec::RangeMatch(range)) => HeaderTest::Range(range.start, range.end),
    };
    Ok(HeaderMatch {
        name,
        test,
        invert: config.invert_match,
        missing_is_empty: config.treat_missing_header_as_empty,
    })
}

fn query_match(config: &pb::route::QueryParameterMatcher) -> Result<QueryMatch> {
    use pb::route::query_parameter_matcher::QueryParameterMatchSpecifier as Spec;
    let test = match &config.query_parameter_match_specifier {
        None | Some(Spec::PresentMatch(true)) => None,
        Some(Spec::PresentMatch(false)) => {
            return Err(ConfigError::unsupported("query_parameters.present_match: false"));
        }
        Some(Spec::StringMatch(matcher)) => Some(string_match(matcher)?),
    };
    Ok(QueryMatch { name: config.name.clone(), test })
}

fn action(
    config: &pb::route::Route,
    retry: Option<&Arc<RetryPolicy>>,
    buffer: usize,
) -> Result<Action> {
    use pb::route::route::Action as Config;
    match &config.action {
        Some(Config::Route(action)) => forward(action, retry, buffer)
            .map(|f| Action::Forward(Box::new(f)))
            .map_err(|e| e.within("route")),
        Some(Config::Redirect(action)) => redirect(action).map(|r| Action::Redirect(Box::new(r))),
        Some(Config::DirectResponse(action)) => {
            let status =
                u16::try_from(action.status).ok().and_then(|code| StatusCode::from_u16(code).ok());
            let status = status.filter(|s| (200..600).contains(&s.as_u16()));
            let status = status.ok_or_else(|| {
                ConfigError::invalid("direct_response.status", "200 to 599 is allowed")
            })?;
            let body = action
                .body
                .as_ref()
                .map(|body| data_source(body, "direct_response.body"))
                .transpose()?;
            Ok(Action::Direct(status, Bytes::from(body.unwrap_or_default())))
        }
        Some(_) => Err(ConfigError::unsupported("action")),
        None => Err(ConfigError::invalid("", "one of route, redirect, direct_response is needed")),
    }
}

fn forward(
    config: &pb::route::RouteAction,
    retry: Option<&Arc<RetryPolicy>>,
    buffer: usize,
) -> Result<Forward> {
    use pb::route::route_action::HostRewriteSpecifier as Host;
    let host_rewrite = match &config.host_rewrite_specifier {
        None => HostRewrite::Keep,
        Some(Host::HostRewriteLiteral(text)) => HostRewrite::Literal(header_value(text)?),
        Some(Host::AutoHostRewrite(true)) => HostRewrite::Endpoint,
        Some(Host::AutoHostRewrite(false)) => HostRewrite::Keep,
        Some(Host::HostRewriteHeader(name)) => HostRewrite::Header(header_name(name)?),
        Some(_) => return Err(ConfigError::unsupported("host_rewrite")),
    };
    let regex_rewrite = config.regex_rewrite.as_ref().map(regex_rewrite).transpose()?;
    if regex_rewrite.is_some() && !config.prefix_rewrite.is_empty() {
        return Err(ConfigError::invalid("regex_rewrite", "prefix_rewrite is set as well"));
    }
    let timeout = config
        .timeout
        .as_ref()
        .map(|t| duration(t, "timeout"))
        .transpose()?
        .unwrap_or(ROUTE_TIMEOUT);
    let own_retry = config.retry_policy.as_ref().map(retry_policy).transpose()?.map(Arc::new);
    Ok(Forward {
        cluster: cluster_choice(config)?,
        not_found: match config.cluster_not_found_response_code {
            0 => StatusCode::SERVICE_UNAVAILABLE,
            1 => StatusCode::NOT_FOUND,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        },
        prefix_rewrite: Some(config.prefix_rewrite.clone()).filter(|text| !text.is_empty()),
        regex_rewrite,
        host_rewrite,
        timeout: (!timeout.is_zero()).then_some(timeout),
        idle_timeout: config
            .idle_timeout
            .as_ref()
            .map(|t| duration(t, "idle_timeout"))
            .transpose()?,
        retry: own_retry.or_else(|| retry.cloned()),
        upgrades: config
            .upgrade_configs
            .iter()
            .map(|u| (u.upgrade_type.to_ascii_lowercase(), u.enabled.unwrap_or(true)))
            .collect(),
        buffer_limit: buffer,
    })
}

fn cluster_choice(config: &pb::route::RouteAction) -> Result<ClusterChoice> {
    use pb::route::route_action::ClusterSpecifier as Spec;
    match &config.cluster_specifier {
        Some(Spec::Cluster(name)) => Ok(ClusterChoice::One(name.as_str().into())),
        Some(Spec::ClusterHeader(name)) => Ok(ClusterChoice::Header(header_name(name)?)),
        Some(Spec::WeightedClusters(weighted)) => {
            let list: Vec<(Arc<str>, u64)> = weighted
                .clusters
                .iter()
                .map(|c| (c.name.as_str().into(), u64::from(c.weight.unwrap_or(0))))
                .collect();
            let total: u64 = list.iter().map(|(_, weight)| weight).sum();
            if total == 0 {
                return Err(ConfigError::invalid("weighted_clusters", "the weights add up to 0"));
            }
            if let Some(want) = weighted.total_weight.filter(|want| u64::from(*want) != total) {
                let reason = format!("the weights add up to {total}, not to total_weight {want}");
                return Err(ConfigError::invalid("weighted_clusters", reason));
            }
            Ok(ClusterChoice::Weighted(list, total))
        }
        Some(_) => Err(ConfigError::unsupported("cluster_specifier")),
        None => Err(ConfigError::invalid("", "a cluster is needed")),
    }
}

fn regex_rewrite(config: &pb::matcher::RegexMatchAndSubstitute) -> Result<(Regex, String)> {
    let pattern = config.pattern.as_ref().map(|p| p.regex.as_str()).unwrap_or_default();
    let regex = Regex::new(pattern)
        .map_err(|e| ConfigError::invalid("regex_rewrite.pattern", e.to_string()))?;
    // RE2 writes groups as \1, this crate as ${1}; a literal $ must be doubled.
    let mut substitution = String::new();
    let mut chars = config.substitution.chars();
    while let Some(c) = chars.next() {
        match (c, c == '\\') {
            (_, true) => match chars.next() {
                Some(digit) if digit.is_ascii_digit() => {
                    substitution.push_str(&format!("${{{digit}}}"))
                }
                Some('\\') => substitution.push('\\'),
                _ => {
                    return Err(ConfigError::invalid(
                        "regex_rewrite.substitution",
                        "\\ needs a digit or \\ after it",
                    ));
                }
            },
            ('$', _) => substitution.push_str("$$"),
            _ => substitution.push(c),
        }
    }
    Ok((regex, substitution))
}

fn retry_policy(config: &pb::route::RetryPolicy) -> Result<RetryPolicy> {
    let mut policy = RetryPolicy::new(&config.retry_on)
        .map_err(|name| ConfigError::unsupported(format!("retry_policy.retry_on {name:?}")))?;
    policy.num_retries = config.num_retries.unwrap_or(1);
    policy.per_try_timeout = config
        .per_try_timeout
        .as_ref()
        .map(|t| duration(t, "retry_policy.per_try_timeout"))
        .transpose()?
        .filter(|t| !t.is_zero());
    policy.status_codes =
        config.retriable_status_codes.iter().filter_map(|code| u16::try_from(*code).ok()).collect();
    if let Some(backoff) = &config.retry_back_off {
        if let Some(base) = &backoff.base_interval {
            policy.base = duration(base, "retry_policy.retry_back_off.base_interval")?;
            policy.max = policy.base * 10;
        }
        if let Some(max) = &backoff.max_interval {
            policy.max = duration(max, "retry_policy.retry_back_off.max_interval")?;
        }
    }
    Ok(policy)
}

fn redirect(config: &pb::route::RedirectAction) -> Result<Redirect> {
    use pb::route::redirect_action::{
        PathRewriteSpecifier as Path, SchemeRewriteSpecifier as Scheme,
    };
    let scheme = match &config.scheme_rewrite_specifier {
        None | Some(Scheme::HttpsRedirect(false)) => None,
        Some(Scheme::HttpsRedirect(true)) => Some("https".to_owned()),
        Some(Scheme::SchemeRedirect(scheme)) => Some(scheme.clone()),
    };
    let path = match &config.path_rewrite_specifier {
        None => PathRedirect::Keep,
        Some(Path::PathRedirect(path)) => PathRedirect::Path(path.clone()),
        Some(Path::PrefixRewrite(prefix)) => PathRedirect::Prefix(prefix.clone()),
        Some(_) => return Err(ConfigError::unsupported("redirect.regex_rewrite")),
    };
    let status = match config.response_code {
        0 => StatusCode::MOVED_PERMANENTLY,
        1 => StatusCode::FOUND,
        2 => StatusCode::SEE_OTHER,
        3 => StatusCode::TEMPORARY_REDIRECT,
        _ => StatusCode::PERMANENT_REDIRECT,
    };
    let port = u16::try_from(config.port_redirect)
        .map_err(|_| ConfigError::invalid("redirect.port_redirect", "0 to 65535 is allowed"))?;
    let host = Some(config.host_redirect.clone()).filter(|host| !host.is_empty());
    Ok(Redirect { scheme, host, port, path, status, strip_query: config.strip_query })
}

fn edits(add: &[pb::core::HeaderValueOption], remove: &[String]) -> Result<HeaderEdits> {
    let remove = remove.iter().map(|name| header_name(name)).collect::<Result<_>>()?;
    let mut list = Vec::new();
    for option in add {
        let Some(header) = &option.header else { continue };
        if header.value.is_empty() && !option.keep_empty_value {
            continue;
        }
        let append = match option.append_action {
            0 => Append::Add,
            1 => Append::IfAbsent,
            2 => Append::Overwrite,
            _ => Append::OverwriteIfExists,
        };
        list.push((header_name(&header.key)?, header_value(&unescape(&header.value)?)?, append));
    }
    Ok(HeaderEdits { remove, add: list })
}

/// `%%` is a percent sign; command operators are not implemented in headers.
fn unescape(text: &str) -> Result<String> {
    let plain = text.replace("%%", "\u{0}");
    if plain.contains('%') {
        return Err(ConfigError::unsupported(format!(
            "command operators in header value {text:?}"
        )));
    }
    Ok(plain.replace('\u{0}', "%"))
}

fn header_name(name: &str) -> Result<HeaderName> {
    name.to_ascii_lowercase()
        .parse()
        .map_err(|_| ConfigError::invalid(name, "this is no header name"))
}

fn header_value(text: &str) -> Result<HeaderValue> {
    text.parse().map_err(|_| ConfigError::invalid(text, "this is no header value"))
}

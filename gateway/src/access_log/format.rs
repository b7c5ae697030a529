//! Format strings with command operators, compiled once.

use std::fmt::Write;
use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::HeaderName;
use serde_json::{Map, Value};

use super::Flags;
use crate::bootstrap::ConfigError;

/// Envoy's default format.
const DEFAULT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% \
    %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \
    \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n";

/// What a log line can tell about a stream.
#[derive(Debug)]
pub struct Entry<'a> {
    /// When it began.
    pub start: SystemTime,
    /// How long it took.
    pub duration: Duration,
    /// Method; empty for TCP.
    pub method: &'a str,
    /// Path as routed.
    pub path: &'a str,
    /// Path as received, when it was rewritten.
    pub original_path: Option<&'a str>,
    /// Host and port.
    pub authority: &'a str,
    /// `HTTP/1.1` and so on; empty for TCP.
    pub protocol: &'static str,
    /// Status, 0 when none was sent.
    pub code: u16,
    /// Why.
    pub flags: Flags,
    /// Body bytes from the client.
    pub bytes_received: u64,
    /// Body bytes to the client.
    pub bytes_sent: u64,
    /// Request headers, at least those [`LogFormat::request_headers`] names.
    pub request: &'a HeaderMap,
    /// Response headers, at least those [`LogFormat::response_headers`] names.
    pub response: &'a HeaderMap,
    /// Address of the endpoint.
    pub upstream_host: Option<&'a str>,
    /// Name of the cluster.
    pub upstream_cluster: Option<&'a str>,
    /// Name of the route.
    pub route_name: &'a str,
    /// Peer address.
    pub downstream_remote: &'a str,
    /// Own address of the connection.
    pub downstream_local: &'a str,
}

/// A compiled format.
#[derive(Debug, Clone)]
pub struct LogFormat(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Text(Vec<Op>),
    Json(Vec<(String, Vec<Op>)>, bool),
}

#[derive(Debug, Clone)]
enum Op {
    Literal(String),
    StartTime,
    Duration,
    Protocol,
    Code,
    Flags,
    Received,
    Sent,
    UpstreamHost,
    UpstreamCluster,
    RouteName,
    Remote(bool),
    Local(bool),
    Request(Source, Option<Source>, Option<usize>),
    Response(HeaderName, Option<HeaderName>, Option<usize>),
}

#[derive(Debug, Clone)]
enum Source {
    Method,
    Path,
    OriginalPath,
    Authority,
    Name(HeaderName),
}

impl Default for LogFormat {
    fn default() -> Self {
        Self::text(DEFAULT).expect("the default format is valid")
    }
}

impl LogFormat {
    /// Compiles a text format.
    ///
    /// # Errors
    /// Names the operator that is not implemented.
    pub fn text(format: &str) -> Result<Self, ConfigError> {
        compile(format).map(|ops| Self(Kind::Text(ops)))
    }

    /// Compiles a JSON format: keys to format strings. A line ends in a newline.
    ///
    /// # Errors
    /// Names the operator or value that is not implemented.
    pub fn json(
        fields: &std::collections::BTreeMap<String, prost_types::Value>,
        omit: bool,
    ) -> Result<Self, ConfigError> {
        let mut list = Vec::new();
        for (key, value) in fields {
            match &value.kind {
                Some(prost_types::value::Kind::StringValue(format)) => {
                    list.push((key.clone(), compile(format)?))
                }
                _ => {
                    return Err(ConfigError::unsupported(format!(
                        "json_format.{key}: only strings"
                    )));
                }
            }
        }
        Ok(Self(Kind::Json(list, omit)))
    }

    fn ops(&self) -> Box<dyn Iterator<Item = &Op> + '_> {
        match &self.0 {
            Kind::Text(ops) => Box::new(ops.iter()),
            Kind::Json(fields, _) => Box::new(fields.iter().flat_map(|(_, ops)| ops)),
        }
    }

    /// Request headers the format shows.
    pub fn request_headers(&self) -> Vec<HeaderName> {
        let mut names = Vec::new();
        for op in self.ops() {
            if let Op::Request(first, second, _) = op {
                for source in [Some(first), second.as_ref()].into_iter().flatten() {
                    if let Source::Name(name) = source {
                        names.push(name.clone());
                    }
                }
            }
        }
        names
    }

    /// Response headers the format shows.
    pub fn response_headers(&self) -> Vec<HeaderName> {
        let mut names = Vec::new();
        for op in self.ops() {
            if let Op::Response(first, second, _) = op {
                names.push(first.clone());
                names.extend(second.clone());
            }
        }
        names
    }

    /// The line for `entry`.
    pub fn line(&self, entry: &Entry<'_>) -> String {
        match &self.0 {
            Kind::Text(ops) => {
                let mut line = String::with_capacity(256);
                for op in ops {
                    op.write(entry, &mut line);
                }
                line
            }
            Kind::Json(fields, omit) => {
                let mut map = Map::new();
                for (key, ops) in fields {
                    let value = json_value(ops, entry);
                    if !(*omit && value.is_null()) {
                        map.insert(key.clone(), value);
                    }
                }
                format!("{}\n", Value::Object(map))
            }
        }
    }
}

/// A single numeric operator is a number, a missing value null, all else a string.
fn json_value(ops: &[Op], entry: &Entry<'_>) -> Value {
    let mut text = String::new();
    for op in ops {
        op.write(entry, &mut text);
    }
    match ops {
        [Op::Code | Op::Received | Op::Sent | Op::Duration] => {
            text.parse::<u64>().map_or(Value::Null, Value::from)
        }
        [Op::Literal(_)] => Value::String(text),
        [_] if text == "-" => Value::Null,
        _ => Value::String(text),
    }
}

impl Op {
    fn write(&self, entry: &Entry<'_>, line: &mut String) {
        let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
        let text = match self {
            Self::Literal(text) => return line.push_str(text),
            Self::StartTime => return write_time(entry.start, line),
            Self::Duration => entry.duration.as_millis().to_string(),
            Self::Protocol => or_dash(entry.protocol),
            Self::Code => entry.code.to_string(),
            Self::Flags => entry.flags.to_string(),
            Self::Received => entry.bytes_received.to_string(),
            Self::Sent => entry.bytes_sent.to_string(),
            Self::UpstreamHost => or_dash(entry.upstream_host.unwrap_or_default()),
            Self::UpstreamCluster => or_dash(entry.upstream_cluster.unwrap_or_default()),
            Self::RouteName => or_dash(entry.route_name),
            Self::Remote(port) => address(entry.downstream_remote, *port),
            Self::Local(port) => address(entry.downstream_local, *port),
            Self::Request(first, second, max) => {
                let value = entry
                    .get(first)
                    .or_else(|| second.as_ref().and_then(|source| entry.get(source)));
                cut(value, *max)
            }
            Self::Response(first, second, max) => {
                let get =
                    |name: &HeaderName| entry.response.get(name).and_then(|v| v.to_str().ok());
                cut(get(first).or_else(|| second.as_ref().and_then(get)), *max)
            }
        };
        line.push_str(&text);
    }
}

impl<'a> Entry<'a> {
    fn get(&self, source: &Source) -> Option<&'a str> {
        match source {
            Source::Method => Some(self.method),
            Source::Path => Some(self.path),
            Source::OriginalPath => self.original_path,
            Source::Authority => Some(self.authority),
            Source::Name(name) => self.request.get(name).and_then(|v| v.to_str().ok()),
        }
        .filter(|text| !text.is_empty())
    }
}

fn address(text: &str, port: bool) -> String {
    let text = if text.is_empty() { "-" } else { text };
    if port {
        text.to_owned()
    } else {
        text.rsplit_once(':').map_or(text, |(host, _)| host).to_owned()
    }
}

fn cut(value: Option<&str>, max: Option<usize>) -> String {
    let value = value.unwrap_or("-");
    max.and_then(|max| value.get(..max)).unwrap_or(value).to_owned()
}

/// RFC 3339 with milliseconds, UTC.
fn write_time(time: SystemTime, line: &mut String) {
    match jiff::Timestamp::try_from(time) {
        // Writing to a String cannot fail.
        Ok(stamp) => {
            let _ = write!(line, "{stamp:.3}");
        }
        Err(_) => line.push('-'),
    }
}

fn compile(format: &str) -> Result<Vec<Op>, ConfigError> {
    let mut ops = Vec::new();
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        if at > 0 {
            ops.push(Op::Literal(rest[..at].to_owned()));
        }
        rest = &rest[at + 1..];
        let end = operator_end(rest)
            .ok_or_else(|| ConfigError::invalid("format", "a % has no partner"))?;
        ops.push(if end == 0 { Op::Literal("%".to_owned()) } else { operator(&rest[..end])? });
        rest = &rest[end + 1..];
    }
    if !rest.is_empty() {
        ops.push(Op::Literal(rest.to_owned()));
    }
    Ok(ops)
}

/// The closing `%`; one inside parentheses belongs to the argument.
fn operator_end(text: &str) -> Option<usize> {
    let mut depth = 0;
    text.char_indices().find_map(|(at, c)| {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            '%' if depth <= 0 => return Some(at),
            _ => {}
        }
        None
    })
}

fn operator(text: &str) -> Result<Op, ConfigError> {
    let unknown = || ConfigError::unsupported(format!("format operator %{text}%"));
    let Some((name, rest)) = text.split_once('(') else {
        return match text {
            "START_TIME" => Ok(Op::StartTime),
            "DURATION" => Ok(Op::Duration),
            "PROTOCOL" => Ok(Op::Protocol),
            "RESPONSE_CODE" => Ok(Op::Code),
            "RESPONSE_FLAGS" => Ok(Op::Flags),
            "BYTES_RECEIVED" => Ok(Op::Received),
            "BYTES_SENT" => Ok(Op::Sent),
            "UPSTREAM_HOST" => Ok(Op::UpstreamHost),
            "UPSTREAM_CLUSTER" => Ok(Op::UpstreamCluster),
            "ROUTE_NAME" => Ok(Op::RouteName),
            "DOWNSTREAM_REMOTE_ADDRESS" | "DOWNSTREAM_DIRECT_REMOTE_ADDRESS" => {
                Ok(Op::Remote(true))
            }
            "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => Ok(Op::Remote(false)),
            "DOWNSTREAM_LOCAL_ADDRESS" => Ok(Op::Local(true)),
            "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => Ok(Op::Local(false)),
            _ => Err(unknown()),
        };
    };
    let (argument, limit) = rest.split_once(')').ok_or_else(unknown)?;
    let max =
        limit.strip_prefix(':').map(|n| n.parse::<usize>().map_err(|_| unknown())).transpose()?;
    let (first, second) = argument.split_once('?').map_or((argument, None), |(a, b)| (a, Some(b)));
    match name {
        "REQ" => Ok(Op::Request(source(first)?, second.map(source).transpose()?, max)),
        "RESP" => Ok(Op::Response(header(first)?, second.map(header).transpose()?, max)),
        _ => Err(unknown()),
    }
}

fn source(name: &str) -> Result<Source, ConfigError> {
    Ok(match name.to_ascii_lowercase().as_str() {
        ":method" => Source::Method,
        ":path" => Source::Path,
        ":authority" => Source::Authority,
        "x-envoy-original-path" => Source::OriginalPath,
        other => Source::Name(header(other)?),
    })
}

fn header(name: &str) -> Result<HeaderName, ConfigError> {
    name.to_ascii_lowercase()
        .parse()
        .map_err(|_| ConfigError::invalid(name, "this is no header name"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_format_is_envoys() {
        let mut request = HeaderMap::new();
        request.insert("user-agent", "curl/7.88.1".parse().unwrap());
        let mut flags = Flags::default();
        flags.set(Flags::UPSTREAM_CONNECTION_FAILURE);
        flags.set(Flags::RETRY_LIMIT);
        let entry = Entry {
            start: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
            duration: Duration::from_micros(32_900),
            method: "GET",
            path: "/retry",
            original_path: None,
            authority: "127.0.0.1:19970",
            protocol: "HTTP/1.1",
            code: 503,
            flags,
            bytes_received: 0,
            bytes_sent: 121,
            request: &request,
            response: &HeaderMap::new(),
            upstream_host: Some("127.0.0.1:1"),
            upstream_cluster: None,
            route_name: "",
            downstream_remote: "",
            downstream_local: "",
        };
        assert_eq!(
            LogFormat::default().line(&entry),
            "[2023-11-14T22:13:20.123Z] \"GET /retry HTTP/1.1\" 503 URX,UF 0 121 32 - \"-\" \"curl/7.88.1\" \"-\" \
             \"127.0.0.1:19970\" \"127.0.0.1:1\"\n"
        );
        assert_eq!(LogFormat::text("%%%RESPONSE_CODE%").unwrap().line(&entry), "%503");
        assert!(LogFormat::text("%NOPE%").is_err() && LogFormat::text("%PROTOCOL").is_err());
    }
}

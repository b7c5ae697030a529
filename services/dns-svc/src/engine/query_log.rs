//! The `log` plugin: a line a query, in CoreDNS's formats.

use std::fmt::Write;
use std::time::Duration;

use super::Client;
use super::site::is_negative;
use crate::wire::types::{OPT, rcode_text, type_text};
use crate::wire::{Name, Query, scan, unpack};

/// CoreDNS's default format.
pub const COMMON: &str = "{remote}:{port} - {>id} \"{type} {class} {name} {proto} {size} {>do} {>bufsize}\" {rcode} {>rflags} {rsize} {duration}";
/// With the operation code.
pub const COMBINED: &str = "{remote}:{port} - {>id} \"{type} {class} {name} {proto} {size} {>do} {>bufsize}\" {rcode} {>rflags} {rsize} {duration} {>opcode}";

/// Header flags in the order they are shown.
const FLAGS: [(u16, &str); 7] = [
    (0x8000, "qr"),
    (0x0400, "aa"),
    (0x0200, "tc"),
    (0x0100, "rd"),
    (0x0080, "ra"),
    (0x0020, "ad"),
    (0x0010, "cd"),
];

/// Which answers are logged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Classes {
    /// Every one.
    pub all: bool,
    /// Those with records.
    pub success: bool,
    /// Those that deny a name or type.
    pub denial: bool,
    /// Failures.
    pub error: bool,
}

/// One `log` directive.
#[derive(Debug, Clone)]
pub struct LogRule {
    /// Names below these are logged.
    pub names: Vec<Name>,
    /// Text with placeholders.
    pub format: String,
    /// Which answers.
    pub classes: Classes,
}

/// Logs by the first rule the name falls under.
pub fn log_query(rules: &[LogRule], query: &Query, client: &Client, answer: &[u8], took: Duration) {
    let Some(rule) =
        rules.iter().find(|rule| rule.names.iter().any(|name| query.name.is_within(name)))
    else {
        return;
    };
    let Some(walked) = scan(answer) else { return };
    let rcode = walked.rcode();
    let denied = is_negative(rcode, walked.answers());
    let classes = &rule.classes;
    let wanted = classes.all
        || (classes.denial && denied)
        || (classes.success && rcode == 0 && !denied)
        || (classes.error && rcode != 0 && !denied);
    if wanted {
        tracing::info!("{}", line(&rule.format, query, client, answer, took));
    }
}

/// The format with its placeholders replaced; one that is not known stays as it is.
fn line(format: &str, query: &Query, client: &Client, answer: &[u8], took: Duration) -> String {
    let mut line = String::with_capacity(128);
    let mut rest = format;
    while let Some(open) = rest.find('{') {
        line.push_str(&rest[..open]);
        rest = &rest[open..];
        let Some(close) = rest.find('}') else { break };
        let (word, after) = rest.split_at(close + 1);
        if !replace(&mut line, &word[1..close], query, client, answer, took) {
            line.push_str(word);
        }
        rest = after;
    }
    line.push_str(rest);
    line
}

fn replace(
    line: &mut String,
    word: &str,
    query: &Query,
    client: &Client,
    answer: &[u8],
    took: Duration,
) -> bool {
    let ip = client.remote.ip();
    // Writing to a String cannot fail.
    let _ = match word {
        "type" => match type_text(query.qtype) {
            "other" => write!(line, "TYPE{}", query.qtype),
            text => line.write_str(text),
        },
        "name" => write!(line, "{}", query.name),
        "class" => match query.class {
            1 => line.write_str("IN"),
            3 => line.write_str("CH"),
            255 => line.write_str("ANY"),
            other => write!(line, "CLASS{other}"),
        },
        "proto" => line.write_str(if client.tcp { "tcp" } else { "udp" }),
        "remote" if ip.is_ipv6() => write!(line, "[{ip}]"),
        "remote" => write!(line, "{ip}"),
        "port" => write!(line, "{}", client.remote.port()),
        "size" => write!(line, "{}", query.size),
        "duration" => write!(line, "{}s", took.as_secs_f64()),
        "rcode" => line.write_str(rcode_text(answer[3] & 0xF)),
        "rsize" => write!(line, "{}", raw_size(answer)),
        ">rflags" => {
            let flags = u16::from_be_bytes([answer[2], answer[3]]);
            let set: Vec<&str> =
                FLAGS.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, text)| *text).collect();
            line.write_str(&set.join(","))
        }
        ">bufsize" => write!(line, "{}", query.udp_limit()),
        ">do" => write!(line, "{}", query.wants_dnssec()),
        ">id" => write!(line, "{}", query.id),
        ">opcode" => line.write_str("0"),
        // Metadata that nobody set.
        label if label.starts_with('/') => line.write_str("-"),
        _ => return false,
    };
    true
}

/// Size of a message without compression.
fn raw_size(answer: &[u8]) -> usize {
    let (Some(walked), Some(message)) = (scan(answer), unpack(answer)) else { return answer.len() };
    let opt: usize =
        walked.records.iter().filter(|r| r.rtype == OPT).map(|r| r.end - r.start).sum();
    let records = message.sections.iter().flatten();
    let records: usize = records.map(|r| r.name.wire().len() + 10 + r.data.raw_len()).sum();
    walked.question_end + opt + records
}

//! Prometheus text exposition format 0.0.4.
//!
//! prometheus-client writes OpenMetrics, where a counter's metadata lacks the `_total` suffix and the text ends
//! in `# EOF`. Scrapers of the originals ask for format 0.0.4, so the metadata lines are put right here.

use std::collections::HashSet;
use std::fmt::Write;

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

/// Content type of what [`encode_text`] returns.
pub const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Encodes a registry in format 0.0.4.
pub fn encode_text(registry: &Registry) -> String {
    let mut open = String::new();
    if encode(&mut open, registry).is_err() {
        // Writing to a String cannot fail; a faulty collector can.
        tracing::error!("a metric could not be encoded");
    }
    to_text_format(&open)
}

fn to_text_format(open: &str) -> String {
    let counters: HashSet<&str> = open
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let mut text = String::with_capacity(open.len());
    for line in open.lines() {
        if line == "# EOF" || line.starts_with("# UNIT ") {
            continue;
        }
        let metadata =
            ["# HELP ", "# TYPE "].iter().find_map(|p| Some((p, line.strip_prefix(*p)?)));
        // Writing to a String cannot fail.
        let _ = match metadata {
            Some((prefix, rest)) => {
                let (name, tail) = rest.split_once(' ').unwrap_or((rest, ""));
                let suffix = if counters.contains(name) { "_total" } else { "" };
                let tail = if *prefix == "# TYPE " && tail == "unknown" { "untyped" } else { tail };
                writeln!(text, "{prefix}{name}{suffix} {tail}")
            }
            None => writeln!(text, "{line}"),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::gauge::Gauge;

    use super::*;

    #[test]
    fn counters_keep_their_suffix_in_metadata() {
        let mut registry = Registry::default();
        let puts: Counter = Counter::default();
        puts.inc();
        registry.register("etcd_debugging_mvcc_put", "Puts", puts);
        registry.register("etcd_server_has_leader", "Leader", Gauge::<i64>::default());
        let text = encode_text(&registry);
        assert_eq!(
            text,
            "# HELP etcd_debugging_mvcc_put_total Puts.\n# TYPE etcd_debugging_mvcc_put_total counter\n\
             etcd_debugging_mvcc_put_total 1\n# HELP etcd_server_has_leader Leader.\n\
             # TYPE etcd_server_has_leader gauge\netcd_server_has_leader 0\n"
        );
    }
}

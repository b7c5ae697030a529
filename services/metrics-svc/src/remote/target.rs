//! A target: what it is, how it is reached, how it fares.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

use metrics_model::{Labels, LabelsBuilder, RelabelRule, format_millis, parse_millis};
use parking_lot::Mutex;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::config::{Scheme, ScrapeConfig};

/// Whether the last scrape worked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Health {
    /// Not scraped yet.
    #[default]
    Unknown,
    /// It did.
    Good,
    /// It did not.
    Bad,
}

impl Health {
    /// The API's word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Good => "up",
            Self::Bad => "down",
        }
    }
}

/// HELP, TYPE and UNIT of a metric.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Metadata {
    /// `counter`, `gauge`, ...
    pub kind: String,
    /// Text.
    pub help: String,
    /// Unit of OpenMetrics.
    pub unit: String,
}

/// How a target fares.
#[derive(Debug, Clone, Default)]
pub struct TargetStatus {
    /// Whether the last scrape worked.
    pub health: Health,
    /// Why it did not.
    pub last_error: String,
    /// When it was, milliseconds; 0 for never.
    pub last_scrape: i64,
    /// How long it took, seconds.
    pub last_duration: f64,
    /// What the target says about its metrics.
    pub metadata: HashMap<String, Metadata>,
}

/// A target that passed relabelling.
#[derive(Debug)]
pub struct Target {
    /// Labels its series get.
    pub labels: Labels,
    /// Labels before relabelling.
    pub discovered: Labels,
    /// Page to fetch.
    pub url: String,
    /// Milliseconds between scrapes.
    pub interval: i64,
    /// Milliseconds a scrape may take.
    pub timeout: i64,
    /// State.
    pub status: Mutex<TargetStatus>,
}

impl Target {
    /// Whether two targets are the same work.
    pub fn same_as(&self, other: &Self) -> bool {
        self.labels == other.labels
            && self.url == other.url
            && (self.interval, self.timeout) == (other.interval, other.timeout)
    }

    /// Milliseconds after a multiple of the interval at which the target is scraped; spreads the load.
    pub fn offset(&self, seed: u64) -> i64 {
        let mut hasher = DefaultHasher::new();
        (seed, &self.labels, &self.url).hash(&mut hasher);
        (hasher.finish() % self.interval.max(1).cast_unsigned()).cast_signed()
    }
}

/// What relabelling makes of a discovered target.
#[derive(Debug)]
pub(super) enum Relabelled {
    Kept(Target),
    /// The labels it was discovered with.
    Dropped(Labels),
}

/// Applies a section's defaults and relabelling to a discovered target.
///
/// # Errors
/// Why what came out is no target.
pub(super) fn build(
    config: &ScrapeConfig,
    discovered: &BTreeMap<String, String>,
) -> Result<Relabelled, String> {
    let mut labels = LabelsBuilder::default();
    let scheme = if config.scheme == Scheme::Https { "https" } else { "http" };
    labels.set("job", &config.job_name);
    labels.set("__scheme__", scheme);
    labels.set("__metrics_path__", &config.metrics_path);
    labels.set("__scrape_interval__", &format_millis(config.scrape_interval.0));
    labels.set("__scrape_timeout__", &format_millis(config.scrape_timeout.0));
    for (name, values) in &config.params {
        if let Some(first) = values.first() {
            labels.set(&format!("__param_{name}"), first);
        }
    }
    for (name, value) in discovered {
        labels.set(name, value);
    }
    let before = labels.clone().build();
    if !RelabelRule::apply_all(&config.relabel_configs, &mut labels) {
        return Ok(Relabelled::Dropped(before));
    }
    let address = labels.get("__address__").to_owned();
    if address.is_empty() {
        return Err("no address".to_owned());
    }
    if address.contains('/') {
        return Err(format!("{address:?} is not a valid hostname"));
    }
    let millis = |name: &str| {
        parse_millis(labels.get(name)).map_err(|e| format!("error parsing {name}: {e}"))
    };
    let (interval, timeout) = (millis("__scrape_interval__")?, millis("__scrape_timeout__")?);
    if interval == 0 || timeout == 0 {
        return Err("scrape interval and timeout cannot be 0".to_owned());
    }
    if timeout > interval {
        return Err(format!(
            "scrape timeout cannot be greater than scrape interval ({timeout}ms > {interval}ms)"
        ));
    }
    let url = url(config, &labels, &address);
    labels.retain(|name| !name.starts_with("__"));
    if labels.get("instance").is_empty() {
        labels.set("instance", &address);
    }
    Ok(Relabelled::Kept(Target {
        labels: labels.build(),
        discovered: before,
        url,
        interval,
        timeout,
        status: Mutex::default(),
    }))
}

fn url(config: &ScrapeConfig, labels: &LabelsBuilder, address: &str) -> String {
    let mut params: BTreeMap<String, Vec<String>> = config.params.clone();
    for (name, value) in labels.pairs() {
        if let Some(param) = name.strip_prefix("__param_") {
            let values = params.entry(param.to_owned()).or_default();
            if values.is_empty() {
                values.push(value.clone());
            } else {
                values[0].clone_from(value);
            }
        }
    }
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let pairs: Vec<String> = params
        .iter()
        .flat_map(|(name, values)| {
            values.iter().map(move |value| format!("{}={}", encode(name), encode(value)))
        })
        .collect();
    let path = labels.get("__metrics_path__");
    let slash = if path.starts_with('/') { "" } else { "/" };
    let query = if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) };
    format!("{}://{address}{slash}{path}{query}", labels.get("__scheme__"))
}

//! `scrape_configs`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use metrics_model::RelabelRule;
use serde::{Deserialize, Serialize};

use super::{
    Authorization, BasicAuth, GlobalConfig, HttpClientConfig, KubernetesSdConfig, LoadError,
    Millis, Secret, Size, TlsConfig, Unsupported,
};

/// `http` or `https`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "named as in the configuration")]
pub enum Scheme {
    #[default]
    Http,
    Https,
}

/// One entry of `static_configs` or of a file.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "named as in the configuration")]
pub struct StaticConfig {
    pub targets: Vec<String>,
    pub labels: BTreeMap<String, String>,
}

/// One entry of `file_sd_configs`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "named as in the configuration")]
pub struct FileSdConfig {
    pub files: Vec<PathBuf>,
    #[serde(default = "five_minutes")]
    pub refresh_interval: Millis,
}

fn five_minutes() -> Millis {
    Millis(300_000)
}

fn yes() -> bool {
    true
}

fn metrics_path() -> String {
    "/metrics".to_owned()
}

/// One entry of `scrape_configs`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "refused fields are only ever read by refusing them")]
#[allow(missing_docs, reason = "named as in the configuration")]
pub struct ScrapeConfig {
    pub job_name: String,
    #[serde(default)]
    pub scrape_interval: Millis,
    #[serde(default)]
    pub scrape_timeout: Millis,
    #[serde(default)]
    pub scrape_protocols: Vec<String>,
    #[serde(default)]
    pub fallback_scrape_protocol: Option<String>,
    #[serde(default)]
    pub honor_labels: bool,
    #[serde(default = "yes")]
    pub honor_timestamps: bool,
    #[serde(default)]
    pub track_timestamps_staleness: bool,
    #[serde(default = "metrics_path")]
    pub metrics_path: String,
    #[serde(default)]
    pub scheme: Scheme,
    #[serde(default = "yes")]
    pub enable_compression: bool,
    #[serde(default)]
    pub params: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    pub body_size_limit: Option<Size>,
    #[serde(default)]
    pub sample_limit: Option<u64>,
    #[serde(default)]
    pub target_limit: Option<u64>,
    #[serde(default)]
    pub label_limit: Option<u64>,
    #[serde(default)]
    pub label_name_length_limit: Option<u64>,
    #[serde(default)]
    pub label_value_length_limit: Option<u64>,
    #[serde(default)]
    pub keep_dropped_targets: Option<u64>,
    #[serde(default)]
    pub static_configs: Vec<StaticConfig>,
    #[serde(default)]
    pub file_sd_configs: Vec<FileSdConfig>,
    #[serde(default)]
    pub kubernetes_sd_configs: Vec<KubernetesSdConfig>,
    #[serde(default, deserialize_with = "super::relabel::rules")]
    pub relabel_configs: Vec<RelabelRule>,
    #[serde(default, deserialize_with = "super::relabel::rules")]
    pub metric_relabel_configs: Vec<RelabelRule>,
    #[serde(default)]
    pub basic_auth: Option<BasicAuth>,
    #[serde(default)]
    pub authorization: Option<Authorization>,
    #[serde(default)]
    pub bearer_token: Option<Secret>,
    #[serde(default)]
    pub bearer_token_file: Option<PathBuf>,
    #[serde(default)]
    pub tls_config: TlsConfig,
    #[serde(default = "yes")]
    pub follow_redirects: bool,
    #[serde(default = "yes")]
    pub enable_http2: bool,
    // What Prometheus has and we do not.
    #[serde(default)]
    pub oauth2: Option<Unsupported>,
    #[serde(default)]
    pub proxy_url: Option<Unsupported>,
    #[serde(default)]
    pub no_proxy: Option<Unsupported>,
    #[serde(default)]
    pub proxy_from_environment: Option<Unsupported>,
    #[serde(default)]
    pub proxy_connect_header: Option<Unsupported>,
    #[serde(default)]
    pub http_headers: Option<Unsupported>,
    #[serde(default)]
    pub native_histogram_bucket_limit: Option<Unsupported>,
    #[serde(default)]
    pub native_histogram_min_bucket_factor: Option<Unsupported>,
    #[serde(default)]
    pub scrape_classic_histograms: Option<Unsupported>,
    #[serde(default)]
    pub always_scrape_classic_histograms: Option<Unsupported>,
    #[serde(default)]
    pub convert_classic_histograms_to_nhcb: Option<Unsupported>,
    #[serde(default)]
    pub scrape_native_histograms: Option<Unsupported>,
    #[serde(default)]
    pub metric_name_validation_scheme: Option<Unsupported>,
    #[serde(default)]
    pub metric_name_escaping_scheme: Option<Unsupported>,
    #[serde(default)]
    pub scrape_failure_log_file: Option<Unsupported>,
    #[serde(default)]
    pub extra_scrape_metrics: Option<Unsupported>,
    #[serde(default)]
    pub http_sd_configs: Option<Unsupported>,
    #[serde(default)]
    pub dns_sd_configs: Option<Unsupported>,
    #[serde(default)]
    pub consul_sd_configs: Option<Unsupported>,
    #[serde(default)]
    pub docker_sd_configs: Option<Unsupported>,
    #[serde(default)]
    pub dockerswarm_sd_configs: Option<Unsupported>,
    #[serde(default)]
    pub ec2_sd_configs: Option<Unsupported>,
    #[serde(default)]
    pub gce_sd_configs: Option<Unsupported>,
    #[serde(default)]
    pub azure_sd_configs: Option<Unsupported>,
    #[serde(default)]
    pub openstack_sd_configs: Option<Unsupported>,
    #[serde(default)]
    pub nomad_sd_configs: Option<Unsupported>,
    #[serde(default)]
    pub eureka_sd_configs: Option<Unsupported>,
    #[serde(default)]
    pub hetzner_sd_configs: Option<Unsupported>,
    #[serde(default)]
    pub digitalocean_sd_configs: Option<Unsupported>,
    /// The HTTP fields, joined.
    #[serde(skip)]
    pub http: HttpClientConfig,
    /// The section as it stands in the file; tells whether a reload changed it.
    #[serde(skip)]
    pub source: String,
}

impl ScrapeConfig {
    /// Fills what is left out from the global section and checks the rest.
    pub(super) fn resolve(&mut self, global: &GlobalConfig, dir: &Path) -> Result<(), LoadError> {
        let job = self.job_name.clone();
        if job.is_empty() {
            return Err(LoadError::new("job_name is empty"));
        }
        let explicit_timeout = self.scrape_timeout.0 > 0;
        if self.scrape_interval.0 == 0 {
            self.scrape_interval = global.scrape_interval;
        }
        if !explicit_timeout {
            self.scrape_timeout = Millis(global.scrape_timeout.0.min(self.scrape_interval.0));
        }
        if self.scrape_timeout.0 > self.scrape_interval.0 {
            return Err(LoadError::new(format!(
                "scrape timeout greater than scrape interval for scrape config with job name {job:?}"
            )));
        }
        self.body_size_limit = self.body_size_limit.or(global.body_size_limit);
        self.sample_limit = self.sample_limit.or(global.sample_limit);
        self.target_limit = self.target_limit.or(global.target_limit);
        self.keep_dropped_targets = self.keep_dropped_targets.or(global.keep_dropped_targets);
        self.label_limit = self.label_limit.or(global.label_limit);
        self.label_name_length_limit =
            self.label_name_length_limit.or(global.label_name_length_limit);
        self.label_value_length_limit =
            self.label_value_length_limit.or(global.label_value_length_limit);
        if self.scrape_protocols.is_empty() {
            self.scrape_protocols.clone_from(&global.scrape_protocols);
        }
        for protocol in self.scrape_protocols.iter().chain(&self.fallback_scrape_protocol) {
            let known = [
                "OpenMetricsText0.0.1",
                "OpenMetricsText1.0.0",
                "PrometheusText0.0.4",
                "PrometheusText1.0.0",
            ];
            if protocol == "PrometheusProto" {
                return Err(LoadError::new("not supported yet: scrape protocol PrometheusProto"));
            }
            if !known.contains(&protocol.as_str()) {
                return Err(LoadError::new(format!(
                    "unknown scrape protocol {protocol:?}, supported: {known:?}"
                )));
            }
        }
        for group in &self.static_configs {
            if let Some(bad) = group.targets.iter().find(|t| t.contains('/')) {
                return Err(LoadError::new(format!("{bad:?} is not a valid hostname")));
            }
        }
        for file in &mut self.file_sd_configs {
            for path in &mut file.files {
                *path = dir.join(&*path);
            }
        }
        for kube in &mut self.kubernetes_sd_configs {
            kube.resolve(dir)?;
        }
        let http = HttpClientConfig {
            basic_auth: self.basic_auth.clone(),
            authorization: self.authorization.clone(),
            tls_config: self.tls_config.clone(),
            follow_redirects: self.follow_redirects,
            enable_http2: self.enable_http2,
        };
        self.http =
            http.resolve(self.bearer_token.as_ref(), self.bearer_token_file.as_ref(), dir)?;
        Ok(())
    }
}

//! The configuration file: `prometheus.yml`, read strictly.
//!
//! Unknown fields are errors that name the field and the line; fields Prometheus knows and we do not are refused
//! as "not supported yet".

mod http;
mod kubernetes;
mod load;
mod relabel;
mod rules;
mod scalars;
mod scrape;

pub use http::{Authorization, BasicAuth, HttpClientConfig, TlsConfig};
pub use kubernetes::{KubernetesSdConfig, Role};
pub use load::{Config, GlobalConfig, LoadError, load, parse};
pub use rules::{Rule, RuleGroup, expand, load_rules};
pub use scalars::{Millis, Secret, Size, Unsupported};
pub use scrape::{FileSdConfig, Scheme, ScrapeConfig, StaticConfig};

//! The parts of a running server, and reloading.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use flotilla_config::ExitError;
use flotilla_server::{Readiness, Shutdown};
use metrics_promql::Limits;
use metrics_tsdb::Db;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;

use crate::config::{self, Config, RuleGroup};
use crate::engine::{QueryEngine, Rules};
use crate::flags::Flags;
use crate::metrics::Metrics;
use crate::now_millis;
use crate::remote::Targets;
use crate::store::{Source, options};

/// File read when no flag names one.
const DEFAULT_FILE: &str = "prometheus.yml";

/// A configuration and the rules it names.
pub(crate) type Loaded = (Config, Vec<RuleGroup>);

/// Everything a request may need.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) flags: Flags,
    pub(crate) external_url: String,
    pub(crate) started: i64,
    pub(crate) db: Arc<Db>,
    pub(crate) queries: Arc<QueryEngine>,
    pub(crate) targets: Targets,
    pub(crate) rules: Rules,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) ready: Readiness,
    pub(crate) config: ArcSwap<Config>,
    pub(crate) shutdown: Shutdown,
    /// Time of the last good reload, and whether the last one was good.
    pub(crate) reloaded: Mutex<(i64, bool)>,
    reloading: Mutex<()>,
}

/// Reads the configuration; `None` when no file is named and the default one does not exist.
///
/// # Errors
/// One line.
pub(crate) fn read_config(flags: &Flags) -> Result<Option<Loaded>, String> {
    let path: PathBuf = match &flags.config_file {
        Some(path) => path.clone(),
        None if Path::new(DEFAULT_FILE).exists() => DEFAULT_FILE.into(),
        None => return Ok(None),
    };
    let config = config::load(&path).map_err(|e| e.to_string())?;
    let rules = config::load_rules(&config.rule_files).map_err(|e| e.to_string())?;
    Rules::check(&rules)?;
    Ok(Some((config, rules)))
}

/// The configuration of a server that was given none: it watches itself.
pub(crate) fn scrape_self(address: &str) -> Loaded {
    let text = format!(
        "global:\n  scrape_interval: 15s\nscrape_configs:\n- job_name: prometheus\n  static_configs:\n  - targets: ['{address}']\n"
    );
    (config::parse(&text, Path::new(".")).unwrap_or_default(), Vec::new())
}

impl App {
    pub(crate) fn start(
        flags: Flags,
        loaded: Loaded,
        address: &str,
        shutdown: Shutdown,
    ) -> Result<Arc<Self>, ExitError> {
        let db = Db::open(&flags.path, options(&flags))
            .map_err(|error| ExitError::Unavailable(format!("opening storage failed: {error}")))?;
        let db = Arc::new(db);
        let metrics = Arc::new(Metrics::default());
        let limits = Limits {
            lookback: flags.lookback.as_millis() as i64,
            max_samples: flags.max_samples,
            timeout: flags.timeout,
            default_step: loaded.0.global.evaluation_interval.0,
            ..Limits::default()
        };
        let queries = Arc::new(QueryEngine::new(
            Arc::new(Source(db.clone())),
            limits,
            flags.max_concurrency,
            metrics.clone(),
        ));
        let external_url = match flags.external_url.trim_end_matches('/') {
            "" => format!("http://{address}"),
            url => url.to_owned(),
        };
        let app = Arc::new(Self {
            external_url,
            started: now_millis(),
            targets: Targets::new(db.clone(), metrics.clone()),
            rules: Rules::new(db.clone(), queries.clone(), metrics.clone()),
            registry: Arc::new(metrics.registry(db.clone())),
            queries,
            db,
            metrics,
            ready: Readiness::new(),
            config: ArcSwap::default(),
            shutdown,
            reloaded: Mutex::new((0, false)),
            reloading: Mutex::default(),
            flags,
        });
        app.apply(loaded).map_err(ExitError::Config)?;
        Ok(app)
    }

    fn apply(&self, (config, rules): Loaded) -> Result<(), String> {
        self.targets.apply(&config)?;
        self.rules.apply(&config, rules)?;
        self.config.store(Arc::new(config));
        let now = now_millis();
        *self.reloaded.lock() = (now, true);
        self.metrics.reload_successful.set(1);
        self.metrics.reload_time.set(now as f64 / 1000.0);
        Ok(())
    }

    /// Reads the configuration again; a bad one changes nothing.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn reload(&self) -> Result<(), String> {
        let _one_at_a_time = self.reloading.lock();
        let result = match read_config(&self.flags) {
            Ok(Some(loaded)) => self.apply(loaded),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        match &result {
            Ok(()) => tracing::info!("completed loading of configuration file"),
            Err(error) => {
                tracing::error!(error, "error reloading config");
                self.reloaded.lock().1 = false;
                self.metrics.reload_successful.set(0);
            }
        }
        result
    }

    /// Ends scraping and rules.
    pub(crate) fn stop(&self) {
        self.targets.stop();
        self.rules.stop();
    }
}

//! All scrape pools, as the configuration wants them.

use std::collections::BTreeMap;
use std::sync::Arc;

use metrics_model::Labels;
use metrics_tsdb::Db;
use parking_lot::Mutex;

use super::scrape_pool::{Pool, PoolView};
use super::target::Target;
use crate::config::Config;
use crate::metrics::Metrics;

/// A target that relabelling dropped.
#[derive(Debug, Clone, PartialEq)]
pub struct DroppedTarget {
    /// Its section.
    pub pool: String,
    /// What it was discovered with.
    pub discovered: Labels,
}

/// Runs one pool per scrape section.
#[derive(Debug)]
pub struct Targets {
    db: Arc<Db>,
    metrics: Arc<Metrics>,
    pools: Mutex<BTreeMap<String, Pool>>,
}

impl Targets {
    /// No pools yet.
    pub fn new(db: Arc<Db>, metrics: Arc<Metrics>) -> Self {
        Self { db, metrics, pools: Mutex::default() }
    }

    /// Starts, replaces and ends pools so that they are what `config` says. Unchanged sections go on undisturbed.
    ///
    /// # Errors
    /// Names the section whose settings cannot be used; nothing is changed then.
    pub fn apply(&self, config: &Config) -> Result<(), String> {
        let mut pools = self.pools.lock();
        let mut started = BTreeMap::new();
        for section in &config.scrape_configs {
            let unchanged =
                pools.get(&section.job_name).is_some_and(|pool| pool.source() == section.source);
            if !unchanged {
                let pool = Pool::prepare(section.clone(), self.db.clone(), self.metrics.clone())
                    .map_err(|e| format!("scrape config {:?}: {e}", section.job_name))?;
                started.insert(section.job_name.clone(), pool);
            }
        }
        let wanted = |name: &String| config.scrape_configs.iter().any(|s| &s.job_name == name);
        let gone: Vec<String> = pools.keys().filter(|name| !wanted(name)).cloned().collect();
        for name in gone {
            if let Some(pool) = pools.remove(&name) {
                pool.end(true);
            }
        }
        for (name, mut pool) in started {
            // Its series go on under the new settings: no staleness markers.
            if let Some(old) = pools.remove(&name) {
                old.end(false);
            }
            pool.start();
            pools.insert(name, pool);
        }
        Ok(())
    }

    /// Ends all scraping, without staleness markers: the next process goes on.
    pub fn stop(&self) {
        for pool in std::mem::take(&mut *self.pools.lock()).into_values() {
            pool.end(false);
        }
    }

    fn views(&self) -> Vec<(String, Arc<PoolView>)> {
        self.pools.lock().iter().map(|(name, pool)| (name.clone(), pool.view())).collect()
    }

    /// Targets being scraped, with the name of their section.
    pub fn active(&self) -> Vec<(String, Arc<Target>)> {
        let views = self.views();
        views
            .into_iter()
            .flat_map(|(name, view)| view.active().into_iter().map(move |t| (name.clone(), t)))
            .collect()
    }

    /// Targets that were dropped.
    pub fn dropped(&self) -> Vec<DroppedTarget> {
        let views = self.views();
        views
            .into_iter()
            .flat_map(|(pool, view)| {
                view.dropped()
                    .into_iter()
                    .map(move |discovered| DroppedTarget { pool: pool.clone(), discovered })
            })
            .collect()
    }

    /// Names of the sections.
    pub fn pools(&self) -> Vec<String> {
        self.pools.lock().keys().cloned().collect()
    }
}

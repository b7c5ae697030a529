//! The endpoints of a cluster by priority, and which of them may be used now.

use std::sync::Arc;

use super::host::Host;
use crate::engine::balance::{Policy, Turns};

/// An immutable view; health and membership changes make a new one.
#[derive(Debug, Default)]
pub struct HostSet {
    levels: Vec<Level>,
    /// All endpoints in the order of the configuration.
    pub all: Vec<Arc<Host>>,
}

#[derive(Debug)]
struct Level {
    healthy: Turns<Arc<Host>>,
    everyone: Turns<Arc<Host>>,
    panic: bool,
}

/// Why no endpoint was chosen, or that panic chose it.
#[derive(Debug)]
pub struct Picked {
    /// The endpoint.
    pub host: Arc<Host>,
    /// Too few were healthy, so health was ignored.
    pub panic: bool,
}

impl HostSet {
    /// Sorts endpoints into levels. Below `panic_percent` healthy ones, a level ignores health.
    pub fn new(all: Vec<Arc<Host>>, panic_percent: f64) -> Self {
        let mut priorities: Vec<u32> = all.iter().map(|host| host.priority()).collect();
        priorities.sort_unstable();
        priorities.dedup();
        let levels = priorities.into_iter().map(|priority| {
            let everyone: Vec<_> =
                all.iter().filter(|host| host.priority() == priority).cloned().collect();
            let healthy: Vec<_> =
                everyone.iter().filter(|host| host.is_healthy()).cloned().collect();
            let percent = healthy.len() as f64 * 100.0 / everyone.len() as f64;
            Level {
                panic: percent < panic_percent,
                healthy: Turns::new(healthy),
                everyone: Turns::new(everyone),
            }
        });
        Self { levels: levels.collect(), all }
    }

    /// How many are healthy.
    pub fn healthy(&self) -> usize {
        self.levels.iter().map(|level| level.healthy.hosts().len()).sum()
    }

    /// Chooses an endpoint: the first level that has enough healthy ones, else the first level whatever its health.
    pub fn pick(&self, policy: Policy, avoid: &dyn Fn(&Arc<Host>) -> bool) -> Option<Picked> {
        let fit =
            self.levels.iter().find(|level| !level.panic && !level.healthy.hosts().is_empty());
        if let Some(level) = fit {
            return level
                .healthy
                .pick(policy, avoid)
                .map(|host| Picked { host: host.clone(), panic: false });
        }
        let level = self.levels.iter().find(|level| level.panic)?;
        level.everyone.pick(policy, avoid).map(|host| Picked { host: host.clone(), panic: true })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::address::Address;
    use crate::net::host::Ill;

    fn host(port: u16, priority: u32, ill: bool) -> Arc<Host> {
        let host = Host::new(Address::Tcp(([127, 0, 0, 1], port).into()), String::new(), 1);
        host.place(1, priority);
        host.mark(Ill::Assigned, ill);
        Arc::new(host)
    }

    fn pick(set: &HostSet) -> Option<(String, bool)> {
        set.pick(Policy::RoundRobin, &|_| false).map(|p| (p.host.name.clone(), p.panic))
    }

    #[test]
    fn unhealthy_level_fails_over_to_the_next() {
        let set = HostSet::new(vec![host(1, 0, true), host(2, 1, false)], 50.0);
        assert_eq!(pick(&set), Some(("127.0.0.1:2".to_owned(), false)));
        let set = HostSet::new(vec![host(1, 0, true)], 50.0);
        assert_eq!(pick(&set), Some(("127.0.0.1:1".to_owned(), true)), "panic");
        assert_eq!(pick(&HostSet::new(vec![host(1, 0, true)], 0.0)), None);
        assert_eq!(pick(&HostSet::new(Vec::new(), 50.0)), None);
    }
}

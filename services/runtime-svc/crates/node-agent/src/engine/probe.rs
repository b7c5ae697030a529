//! When a probe is due and what its results add up to.

use super::kube::Probe;

/// Which of the three.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProbeKind {
    /// Holds the other two back until it passes.
    Startup,
    /// Failing for good restarts the container.
    Liveness,
    /// Failing takes the pod out of its Services.
    Readiness,
}

impl ProbeKind {
    /// The word in events: `Startup probe failed: ...`.
    pub fn title(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

/// Times and thresholds with defaults filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Seconds between start and first probe.
    pub delay: u64,
    /// Seconds a probe may take.
    pub timeout: u64,
    /// Seconds between probes.
    pub period: u64,
    /// Passes in a row that turn the verdict to passing.
    pub successes: u32,
    /// Failures in a row that turn the verdict to failing.
    pub failures: u32,
}

impl Settings {
    /// Reads a probe; the defaults are 1 s timeout, 10 s period, one success, three failures.
    pub fn of(probe: &Probe) -> Self {
        let number = |value: Option<i32>, default: u32| {
            value.and_then(|v| u32::try_from(v).ok()).filter(|v| *v > 0).unwrap_or(default)
        };
        Self {
            delay: u64::try_from(probe.initial_delay_seconds).unwrap_or(0),
            timeout: number(probe.timeout_seconds, 1).into(),
            period: number(probe.period_seconds, 10).into(),
            successes: number(probe.success_threshold, 1),
            failures: number(probe.failure_threshold, 3),
        }
    }
}

/// Counts results into a verdict.
#[derive(Debug, Clone)]
pub struct Tally {
    settings: Settings,
    passing: bool,
    last: Option<bool>,
    in_a_row: u32,
}

impl Tally {
    /// A tally that starts with the verdict `passing`: liveness starts passing, the others failing.
    pub fn new(settings: Settings, passing: bool) -> Self {
        Self { settings, passing, last: None, in_a_row: 0 }
    }

    /// Counts one result; the new verdict when a threshold is reached, whether or not it differs.
    pub fn count(&mut self, passed: bool) -> Option<bool> {
        if self.last == Some(passed) {
            self.in_a_row = self.in_a_row.saturating_add(1);
        } else {
            self.last = Some(passed);
            self.in_a_row = 1;
        }
        let needed = if passed { self.settings.successes } else { self.settings.failures };
        if self.in_a_row < needed {
            return None;
        }
        self.passing = passed;
        Some(passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdict_turns_at_the_thresholds() {
        let settings = Settings { delay: 0, timeout: 1, period: 1, successes: 2, failures: 3 };
        let mut tally = Tally::new(settings, false);
        let got: Vec<_> =
            [true, true, false, false, true, false, false, false].map(|r| tally.count(r)).into();
        assert_eq!(got, [None, Some(true), None, None, None, None, None, Some(false)]);
    }

    #[test]
    fn defaults_are_filled_in() {
        let got = Settings::of(&Probe::default());
        assert_eq!(got, Settings { delay: 0, timeout: 1, period: 10, successes: 1, failures: 3 });
        let zero =
            Probe { period_seconds: Some(0), failure_threshold: Some(-1), ..Probe::default() };
        assert_eq!(Settings::of(&zero), got);
    }
}

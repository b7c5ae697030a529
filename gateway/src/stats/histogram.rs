//! A histogram over Envoy's default Prometheus buckets.

use std::sync::atomic::{AtomicU64, Ordering};

/// Upper bounds, in the unit of the histogram (milliseconds for times).
pub const BOUNDS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// Counts per bucket, and the sum in thousandths.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; 20],
    sum_milli: AtomicU64,
}

impl Histogram {
    /// Adds a value.
    pub fn record(&self, value: f64) {
        let index = BOUNDS.iter().position(|bound| value <= *bound).unwrap_or(BOUNDS.len());
        self.buckets[index].fetch_add(1, Ordering::Relaxed);
        // A negative or absurd value adds nothing to the sum rather than wrapping it.
        self.sum_milli.fetch_add((value * 1000.0).max(0.0) as u64, Ordering::Relaxed);
    }

    /// Adds a duration in whole milliseconds, as Envoy does.
    pub fn record_ms(&self, duration: std::time::Duration) {
        self.record(duration.as_millis() as f64);
    }

    /// Cumulative counts per bound, then the total.
    pub fn cumulative(&self) -> ([u64; 19], u64) {
        let (mut counts, mut total) = ([0; 19], 0);
        for (index, bucket) in self.buckets.iter().enumerate() {
            total += bucket.load(Ordering::Relaxed);
            if let Some(count) = counts.get_mut(index) {
                *count = total;
            }
        }
        (counts, total)
    }

    /// Sum of all values.
    pub fn sum(&self) -> f64 {
        self.sum_milli.load(Ordering::Relaxed) as f64 / 1000.0
    }

    /// Estimates a quantile by interpolation within its bucket; `None` when nothing was recorded.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let (counts, total) = self.cumulative();
        if total == 0 {
            return None;
        }
        let rank = q * total as f64;
        let index = counts.iter().position(|count| *count as f64 >= rank && *count > 0);
        let Some(index) = index else { return BOUNDS.last().copied() };
        let (low, below) =
            if index == 0 { (0.0, 0) } else { (BOUNDS[index - 1], counts[index - 1]) };
        let inside = (counts[index] - below).max(1) as f64;
        Some(low + (BOUNDS[index] - low) * ((rank - below as f64) / inside).clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fall_into_their_buckets() {
        let histogram = Histogram::default();
        for value in [0.0, 1.0, 7.0, 4_000_000.0] {
            histogram.record(value);
        }
        let (counts, total) = histogram.cumulative();
        assert_eq!((counts[0], counts[1], counts[3], counts[18], total), (1, 2, 3, 3, 4));
        assert!((histogram.sum() - 4_000_008.0).abs() < 0.01);
        assert!(histogram.quantile(0.5).unwrap() <= 1.0);
        assert_eq!(Histogram::default().quantile(0.5), None);
    }
}

//! Functions of one window: rates, regressions and everything `_over_time`.

use crate::points::Window;

/// A sum with Kahan-Neumaier compensation.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Kahan {
    sum: f64,
    rest: f64,
}

impl Kahan {
    pub(crate) fn add(&mut self, value: f64) {
        let total = self.sum + value;
        if total.is_infinite() {
            self.rest = 0.0;
        } else if self.sum.abs() >= value.abs() {
            self.rest += (self.sum - total) + value;
        } else {
            self.rest += (value - total) + self.sum;
        }
        self.sum = total;
    }

    pub(crate) fn total(self) -> f64 {
        self.sum + self.rest
    }

    fn raw(self) -> f64 {
        self.sum
    }
}

/// The function's value; `None` when the window says nothing.
pub(crate) fn apply(name: &str, w: Window<'_>, scalar: f64, eval_time: i64) -> Option<f64> {
    let values = w.values;
    if values.is_empty() {
        return None;
    }
    match name {
        "rate" => extrapolated(w, true, true),
        "increase" => extrapolated(w, true, false),
        "delta" => extrapolated(w, false, false),
        "irate" => last_two(w, true),
        "idelta" => last_two(w, false),
        "deriv" => (values.len() >= 2).then(|| regression(w, w.times[0]).0),
        "predict_linear" => (values.len() >= 2).then(|| {
            let (slope, intercept) = regression(w, eval_time);
            slope * scalar + intercept
        }),
        "changes" => Some(count_pairs(values, |a, b| a != b && !(a.is_nan() && b.is_nan()))),
        "resets" => Some(count_pairs(values, |a, b| b < a)),
        "count_over_time" => Some(values.len() as f64),
        "last_over_time" => values.last().copied(),
        "present_over_time" => Some(1.0),
        "sum_over_time" => {
            let mut sum = Kahan::default();
            values.iter().for_each(|v| sum.add(*v));
            Some(if sum.raw().is_infinite() { sum.raw() } else { sum.total() })
        }
        "avg_over_time" => Some(mean(values)),
        "min_over_time" => Some(extreme(values, |new, old| new < old)),
        "max_over_time" => Some(extreme(values, |new, old| new > old)),
        "stdvar_over_time" => Some(variance(values)),
        "stddev_over_time" => Some(variance(values).sqrt()),
        "quantile_over_time" => Some(quantile(scalar, &mut values.to_vec())),
        _ => None,
    }
}

fn count_pairs(values: &[f64], differs: impl Fn(f64, f64) -> bool) -> f64 {
    values.windows(2).filter(|pair| differs(pair[0], pair[1])).count() as f64
}

fn extreme(values: &[f64], better: impl Fn(f64, f64) -> bool) -> f64 {
    let mut best = values[0];
    for value in values {
        if better(*value, best) || best.is_nan() {
            best = *value;
        }
    }
    best
}

/// The mean: a compensated sum, or increments when the sum would overflow.
pub(crate) fn mean(values: &[f64]) -> f64 {
    let mut sum = Kahan::default();
    values.iter().for_each(|v| sum.add(*v));
    let count = values.len() as f64;
    if sum.raw().is_finite() {
        return sum.total() / count;
    }
    let mut mean = 0.0;
    for (at, value) in values.iter().enumerate() {
        if f64::is_infinite(mean) && (value.is_finite() || value.signum() == f64::signum(mean)) {
            continue;
        }
        let n = (at + 1) as f64;
        mean += value / n - mean / n;
    }
    mean
}

fn variance(values: &[f64]) -> f64 {
    let (mut mean, mut squares) = (Kahan::default(), Kahan::default());
    for (at, value) in values.iter().enumerate() {
        let delta = value - mean.total();
        mean.add(delta / (at + 1) as f64);
        squares.add(delta * (value - mean.total()));
    }
    squares.total() / values.len() as f64
}

/// The q-quantile, linear between neighbours.
pub(crate) fn quantile(q: f64, values: &mut [f64]) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if !(0.0..=1.0).contains(&q) {
        return if q < 0.0 { f64::NEG_INFINITY } else { f64::INFINITY };
    }
    // NaN sorts first.
    values.sort_by(|a, b| match (a.is_nan(), b.is_nan()) {
        (true, true) => std::cmp::Ordering::Equal,
        (true, false) => std::cmp::Ordering::Less,
        (false, true) => std::cmp::Ordering::Greater,
        _ => a.total_cmp(b),
    });
    let last = (values.len() - 1) as f64;
    let rank = q * last;
    let (lower, upper) = (rank.floor().max(0.0), (rank.floor() + 1.0).min(last));
    let weight = rank - rank.floor();
    values[lower as usize] * (1.0 - weight) + values[upper as usize] * weight
}

/// rate, increase and delta: what was seen, stretched to the window's bounds where samples come close to them.
fn extrapolated(w: Window<'_>, counter: bool, per_second: bool) -> Option<f64> {
    let (first_time, last_time) = (*w.times.first()?, *w.times.last()?);
    let count = w.values.len();
    if count < 2 {
        return None;
    }
    let mut result = w.values[count - 1] - w.values[0];
    if counter {
        let mut before = w.values[0];
        for value in &w.values[1..] {
            if *value < before {
                result += before;
            }
            before = *value;
        }
    }
    let mut to_start = (first_time - w.start) as f64 / 1000.0;
    let mut to_end = (w.end - last_time) as f64 / 1000.0;
    let sampled = (last_time - first_time) as f64 / 1000.0;
    let average = sampled / (count - 1) as f64;
    let threshold = average * 1.1;
    if to_start >= threshold {
        to_start = average / 2.0;
    }
    if counter && result > 0.0 && w.values[0] >= 0.0 {
        // A counter cannot have been below zero.
        to_start = to_start.min(sampled * (w.values[0] / result));
    }
    if to_end >= threshold {
        to_end = average / 2.0;
    }
    let mut factor = (sampled + to_start + to_end) / sampled;
    if per_second {
        factor /= (w.end - w.start) as f64 / 1000.0;
    }
    Some(result * factor)
}

fn last_two(w: Window<'_>, rate: bool) -> Option<f64> {
    let count = w.values.len();
    let (last, before) = (*w.values.last()?, *w.values.get(count.checked_sub(2)?)?);
    let result = if rate && last < before { last } else { last - before };
    let millis = w.times[count - 1] - w.times[count - 2];
    if millis == 0 {
        return None;
    }
    Some(if rate { result / (millis as f64 / 1000.0) } else { result })
}

/// Slope per second, and the value at `origin`.
fn regression(w: Window<'_>, origin: i64) -> (f64, f64) {
    if w.values.iter().all(|v| *v == w.values[0]) {
        return if w.values[0].is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, w.values[0]) };
    }
    let [mut x_sum, mut y_sum, mut xy_sum, mut xx_sum] = [Kahan::default(); 4];
    for (time, y) in w.times.iter().zip(w.values) {
        let x = (time - origin) as f64 / 1000.0;
        x_sum.add(x);
        y_sum.add(*y);
        xy_sum.add(x * y);
        xx_sum.add(x * x);
    }
    let n = w.values.len() as f64;
    let (x, y) = (x_sum.total(), y_sum.total());
    let covariance = xy_sum.total() - x * y / n;
    let variance = xx_sum.total() - x * x / n;
    let slope = covariance / variance;
    (slope, y / n - slope * x / n)
}

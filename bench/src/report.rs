//! Medians and ranges, because single figures are noisy.

use crate::statistics::{median, range};

/// The rates of several rounds, and all latencies.
#[derive(Default)]
pub struct Row {
    pub rates: Vec<f64>,
    latencies: Vec<u64>,
}

impl Row {
    /// Adds the latencies in microseconds and the rate of one round.
    pub fn add(&mut self, (latencies, rate): (Vec<u64>, f64)) {
        self.latencies.extend(latencies);
        self.rates.push(rate);
    }

    /// Formats the median and range of the rates.
    pub fn shown(&self) -> String {
        let (low, high) = range(&self.rates);
        format!("{:.0} ({low:.0}–{high:.0})", median(&self.rates))
    }

    /// Returns a percentile of the latencies, in milliseconds.
    pub fn percentile(&self, part: f64) -> f64 {
        percentile(&self.latencies, part)
    }
}

/// Returns a percentile of microseconds, in milliseconds.
pub fn percentile(latencies: &[u64], part: f64) -> f64 {
    let mut sorted = latencies.to_vec();
    sorted.sort_unstable();
    let index = ((sorted.len() as f64 - 1.0).max(0.0) * part).round() as usize;
    sorted.get(index).map_or(0.0, |micros| *micros as f64 / 1_000.0)
}

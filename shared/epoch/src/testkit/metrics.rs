//! What a test reads of the metrics.
//!
//! The problem: a promise that is kept by counting is tested by what was counted, and a process has only one recorder of metrics.
//!
//! The invariant: [`value`] gives what was recorded since [`record`] was called first, whoever recorded it. Of histograms nothing
//! is kept.

use std::{
    collections::HashMap,
    sync::{
        Arc, LazyLock, Mutex, Once, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

type Series = Mutex<HashMap<Key, Arc<AtomicU64>>>;

static COUNTERS: LazyLock<Series> = LazyLock::new(Series::default);
/// Their values are the bits of floating-point numbers.
static GAUGES: LazyLock<Series> = LazyLock::new(Series::default);

/// Begins to record, unless that was done before.
///
/// # Panics
/// When the process has another recorder.
#[allow(clippy::expect_used, reason = "a test kit fails tests by panicking")]
pub fn record() {
    static BEGUN: Once = Once::new();
    BEGUN.call_once(|| metrics::set_global_recorder(Recording).expect("the only recorder of this process"));
}

/// The value of a counter or gauge: the sum over all that have these labels, whatever others they have; `None` when there is
/// none.
///
/// # Panics
/// When the process has another recorder.
#[must_use]
pub fn value(name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    record();
    let is_asked = |key: &Key| {
        let mut labels = labels.iter();
        key.name() == name && labels.all(|asked| key.labels().any(|label| (label.key(), label.value()) == *asked))
    };
    let read = |series: &Series, number: fn(u64) -> f64| {
        let series = series.lock().unwrap_or_else(PoisonError::into_inner);
        let found = series.iter().filter(|(key, _)| is_asked(key));
        found.map(|(_, value)| number(value.load(Ordering::Acquire))).reduce(|sum, value| [sum, value].iter().sum())
    };
    read(&COUNTERS, |count| count as f64).or_else(|| read(&GAUGES, f64::from_bits))
}

struct Recording;

fn series(series: &Series, key: &Key) -> Arc<AtomicU64> {
    let mut series = series.lock().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(series.entry(key.clone()).or_default())
}

impl Recorder for Recording {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(series(&COUNTERS, key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(series(&GAUGES, key))
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[cfg(test)]
mod tests {
    use super::{record, value};

    #[test]
    fn what_was_recorded_is_read_by_any_of_its_labels() {
        record();
        metrics::counter!("kit_total", "one" => "a", "other" => "x").increment(2);
        metrics::counter!("kit_total", "one" => "a", "other" => "y").increment(3);
        metrics::gauge!("kit", "one" => "b").set(1.5);
        metrics::gauge!("kit", "one" => "b").decrement(2.0);
        assert_eq!(value("kit_total", &[("one", "a")]), Some(5.0));
        assert_eq!(value("kit_total", &[("other", "y"), ("one", "a")]), Some(3.0));
        assert_eq!(value("kit", &[]), Some(-0.5));
        assert_eq!(value("kit", &[("one", "a")]), None);
        assert_eq!(value("kit_tot", &[]), None);
    }
}

//! Reading metrics in tests.
//!
//! A process has one metrics recorder, so [`value`] returns the sum of all recordings since the first call of
//! [`record`], by any test of the process. Histograms are ignored.

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
/// The values are the bits of `f64` numbers.
static GAUGES: LazyLock<Series> = LazyLock::new(Series::default);

/// Installs the recorder. Later calls have no effect.
///
/// # Panics
/// When the process has another recorder.
#[allow(clippy::expect_used, reason = "a test kit fails tests by panicking")]
pub fn record() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| metrics::set_global_recorder(SeriesRecorder).expect("the only recorder of this process"));
}

/// Returns the value of a counter or gauge, summed over all series with at least these labels, or `None` when there is
/// none.
///
/// # Panics
/// When the process has another recorder.
#[must_use]
pub fn value(name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    record();
    let matches = |key: &Key| {
        let mut labels = labels.iter();
        key.name() == name && labels.all(|label| key.labels().any(|present| (present.key(), present.value()) == *label))
    };
    let read = |series: &Series, number: fn(u64) -> f64| {
        let series = series.lock().unwrap_or_else(PoisonError::into_inner);
        let matching = series.iter().filter(|(key, _)| matches(key));
        matching.map(|(_, value)| number(value.load(Ordering::Acquire))).reduce(|sum, value| [sum, value].iter().sum())
    };
    read(&COUNTERS, |count| count as f64).or_else(|| read(&GAUGES, f64::from_bits))
}

struct SeriesRecorder;

fn series(series: &Series, key: &Key) -> Arc<AtomicU64> {
    let mut series = series.lock().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(series.entry(key.clone()).or_default())
}

impl Recorder for SeriesRecorder {
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
    fn value_sums_series_that_match_the_labels() {
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

//! The process's one metrics recorder.

use std::{
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use super::TelemetryError;

/// Upper bounds of the histograms whose names end in `_seconds`: from a cached read to a request's time limit.
const SECONDS: [f64; 15] = [0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];

const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Renders the process's metrics for Prometheus; installs the recorder the first time.
///
/// # Errors
/// [`TelemetryError::Taken`] when another recorder is installed.
pub fn metrics_handle() -> Result<PrometheusHandle, TelemetryError> {
    static HANDLE: Mutex<Option<PrometheusHandle>> = Mutex::new(None);
    let mut installed = HANDLE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = &*installed {
        return Ok(handle.clone());
    }
    let taken = |detail: String| TelemetryError::Taken { detail };
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
        .and_then(PrometheusBuilder::install_recorder)
        .map_err(|error| taken(error.to_string()))?;
    let upkeep = handle.clone();
    // Histograms keep every sample until somebody sorts them into buckets, which must not depend on being scraped.
    let endless = move || loop {
        thread::sleep(UPKEEP_INTERVAL);
        upkeep.run_upkeep();
    };
    thread::Builder::new()
        .name("metrics-upkeep".to_owned())
        .spawn(endless)
        .map_err(|error| taken(error.to_string()))?;
    *installed = Some(handle.clone());
    Ok(handle)
}

#[cfg(test)]
mod tests {
    use super::metrics_handle;

    #[test]
    fn installs_one_recorder_and_renders_buckets() {
        let first = metrics_handle().unwrap();
        let again = metrics_handle().unwrap();
        metrics::histogram!("test_wait_seconds").record(0.003);
        metrics::counter!("test_things_total").increment(2);
        assert!(first.render().contains("test_things_total 2"));
        assert!(again.render().contains("test_wait_seconds_bucket{le=\"0.005\"} 1"));
    }
}

//! The metrics recorder of the process.

use std::{
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use super::error::TelemetryError;

/// The bucket bounds of histograms named `*_seconds`: from a cached read to the time limit of a request.
const SECONDS: [f64; 15] = [0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];

const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Returns the handle that renders the process's metrics for Prometheus. The first call installs the recorder.
///
/// # Errors
/// [`TelemetryError::AlreadyInstalled`] when another recorder is installed.
pub fn metrics_handle() -> Result<PrometheusHandle, TelemetryError> {
    static HANDLE: Mutex<Option<PrometheusHandle>> = Mutex::new(None);
    let mut installed = HANDLE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = &*installed {
        return Ok(handle.clone());
    }
    let failed = |detail: String| TelemetryError::AlreadyInstalled { detail };
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
        .and_then(PrometheusBuilder::install_recorder)
        .map_err(|error| failed(error.to_string()))?;
    let upkeep = handle.clone();
    // Histograms keep every sample until upkeep moves them into buckets. Upkeep must not depend on scrapes.
    let endless = move || loop {
        thread::sleep(UPKEEP_INTERVAL);
        upkeep.run_upkeep();
    };
    thread::Builder::new()
        .name("metrics-upkeep".to_owned())
        .spawn(endless)
        .map_err(|error| failed(error.to_string()))?;
    *installed = Some(handle.clone());
    Ok(handle)
}

#[cfg(test)]
mod tests {
    use super::metrics_handle;

    #[test]
    fn handle_installs_one_recorder_with_buckets() {
        let first = metrics_handle().unwrap();
        let second = metrics_handle().unwrap();
        metrics::histogram!("test_wait_seconds").record(0.003);
        metrics::counter!("test_things_total").increment(2);
        assert!(first.render().contains("test_things_total 2"));
        assert!(second.render().contains("test_wait_seconds_bucket{le=\"0.005\"} 1"));
    }
}

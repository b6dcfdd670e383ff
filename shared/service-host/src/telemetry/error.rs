//! Errors of the telemetry setup.

#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("log filter {filter:?} is invalid: {detail}")]
    Filter { filter: String, detail: String },
    #[error("trace exporter cannot be set up: {detail}")]
    Exporter { detail: String },
    /// Another subscriber or recorder is installed in this process.
    #[error("telemetry is already set up in this process: {detail}")]
    AlreadyInstalled { detail: String },
}

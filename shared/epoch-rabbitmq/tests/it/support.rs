//! Brokers and metrics for tests.

use std::sync::OnceLock;

use epoch_rabbitmq::RabbitConfig;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use uuid::Uuid;

/// Settings for streams and groups that nobody else uses, on the broker at `url`.
pub(crate) fn private(url: impl Into<String>) -> RabbitConfig {
    metrics_handle();
    let _ = tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).try_init();
    let namespace = format!("t{}", Uuid::now_v7().simple());
    RabbitConfig { group_prefix: namespace.clone(), namespace, ..RabbitConfig::new(url) }
}

/// The same on the broker of this run; `None` when there is none.
pub(crate) fn config() -> Option<RabbitConfig> {
    let url = std::env::var("EPOCH_TEST_AMQP").ok();
    if url.is_none() {
        eprintln!("left out: EPOCH_TEST_AMQP names no broker");
    }
    url.map(private)
}

fn metrics_handle() -> &'static PrometheusHandle {
    static METRICS: OnceLock<PrometheusHandle> = OnceLock::new();
    METRICS.get_or_init(|| PrometheusBuilder::new().install_recorder().unwrap())
}

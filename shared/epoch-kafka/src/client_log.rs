//! librdkafka's log and faults, forwarded to `tracing` and metrics.

use rdkafka::{
    ClientContext,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
};

/// Forwards the log of one client. A lost connection is logged once as a warning, although librdkafka reports it repeatedly.
#[derive(Debug, Clone)]
pub(crate) struct ClientLog {
    /// The `client` field of the log: `producer`, `admin` or a subscription's name.
    pub(crate) client: String,
}

impl ClientContext for ClientLog {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        let client = self.client.as_str();
        match level {
            // librdkafka warns about settings that this crate sets on purpose.
            _ if facility == "CONFWARN" => tracing::debug!(target: "librdkafka", client, facility, message),
            // The committed offset is past the end of the partition. librdkafka restarts at the beginning of the topic.
            RDKafkaLogLevel::Warning if facility == "OFFSET" => {
                tracing::error!(target: "librdkafka", client, facility, message, "broker lost the end of a topic");
                count_lost_tail(client);
            }
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning => tracing::warn!(target: "librdkafka", client, facility, message),
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
                tracing::info!(target: "librdkafka", client, facility, message);
            }
            RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", client, facility, message),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        use RDKafkaErrorCode::{AllBrokersDown, BrokerTransportFailure, Resolve};
        let (client, code) = (self.client.as_str(), error.rdkafka_error_code());
        let fault = code.map_or_else(|| "other".to_owned(), |code| format!("{code:?}"));
        metrics::counter!("epoch_bus_client_faults_total", "client" => client.to_owned(), "fault" => fault)
            .increment(1);
        if matches!(code, Some(AllBrokersDown | BrokerTransportFailure | Resolve)) {
            // `log` has already reported it with the broker's name.
            tracing::debug!(client, %error, reason, "broker unreachable");
        } else {
            tracing::warn!(client, %error, reason, "kafka client reports a fault");
        }
    }
}

/// Counts a lost topic end.
pub(crate) fn count_lost_tail(subscription: &str) {
    metrics::counter!("epoch_bus_lost_tails_total", "subscription" => subscription.to_owned()).increment(1);
}

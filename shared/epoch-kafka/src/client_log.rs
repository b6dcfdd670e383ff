//! What all clients have in common: their log.
//!
//! The problem: librdkafka writes its log where nobody looks, and says over and over, in two ways, that a broker is away.
//! The invariant: everything it says goes to `tracing` with the client's name as a field, and a lost connection once as a warning.

use rdkafka::{
    ClientContext,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
};

/// Passes what librdkafka says on to `tracing`.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    /// The client it comes from: `producer`, `admin` or a subscription's name.
    pub(crate) client: String,
}

impl ClientContext for Log {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        let client = self.client.as_str();
        match level {
            // It warns of what we set on purpose, each time.
            _ if facility == "CONFWARN" => tracing::debug!(target: "librdkafka", client, facility, message),
            // A consumer asks for an offset that the broker doesn't have. It begins again where the topic begins.
            RDKafkaLogLevel::Warning if facility == "OFFSET" => {
                tracing::error!(target: "librdkafka", client, facility, message, "the broker has lost the end of a topic");
                lost_tail(client);
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
            // In the log already, with the broker's name, and not again and again.
            tracing::debug!(client, %error, reason, "broker is out of reach");
        } else {
            tracing::warn!(client, %error, reason, "kafka client reports a fault");
        }
    }
}

/// A broker doesn't have any more what it had.
pub(crate) fn lost_tail(subscription: &str) {
    metrics::counter!("epoch_bus_lost_tails_total", "subscription" => subscription.to_owned()).increment(1);
}

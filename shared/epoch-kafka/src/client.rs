//! What all clients have in common: their log.
//!
//! The problem: librdkafka writes its log where nobody looks, and says the same fault in two ways.
//! The invariant: everything it says goes to `tracing`, once, with the client's name as a field.

use rdkafka::{ClientContext, config::RDKafkaLogLevel, error::KafkaError};

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
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
                tracing::error!(target: "librdkafka", client, facility, message);
            }
            // Lost connections come as warnings, again and again while a broker is away; `error` has them too.
            RDKafkaLogLevel::Warning | RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
                tracing::info!(target: "librdkafka", client, facility, message);
            }
            RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", client, facility, message),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(client = self.client, %error, reason, "kafka client reports a fault");
    }
}

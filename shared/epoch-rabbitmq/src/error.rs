//! Errors of the RabbitMQ bus.
//!
//! Each error names the stream, queue or step that failed, and keeps its source.

use std::time::Duration;

use epoch_registry::RegistryError;
use lapin::ErrorKind;

/// A failure of the broker, of the connection, or of the configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address is invalid. The error omits the address, which may contain a password.
    #[error("broker address is invalid: {detail}")]
    Address {
        /// The syntax error.
        detail: String,
    },
    /// The configured certificate authorities are invalid.
    #[error("certificate authorities are invalid: {detail}")]
    Authorities {
        /// The invalid certificate.
        detail: String,
    },
    /// The broker's certificate is expired, for another host, or not signed by a trusted authority.
    #[error("the broker's certificate is not accepted")]
    Certificate {
        /// The failed check.
        source: lapin::Error,
    },
    /// A name exceeds AMQP's limit.
    #[error("name {name} is longer than 255 bytes")]
    Name {
        /// The rejected queue or stream name.
        name: String,
    },
    /// A schema that the bus was created with is invalid.
    #[error("schemas cannot be registered")]
    Registry {
        /// The invalid schema.
        source: RegistryError,
    },
    /// The schema of an event has no registry id, so the event was not published.
    #[error("cannot frame an event for topic {topic}")]
    Frame {
        /// The event's topic.
        topic: String,
        /// The registry's failure.
        source: RegistryError,
    },
    /// The broker refused a request, or the connection broke.
    #[error("{step} failed")]
    Broker {
        /// The request.
        step: String,
        /// The failure that lapin reported.
        source: lapin::Error,
    },
    /// The broker did not respond in time.
    #[error("{step}: no response after {waited:?}")]
    Timeout {
        /// The request.
        step: String,
        /// The configured time limit.
        waited: Duration,
    },
    /// The broker did not accept an event, or the stream was deleted.
    #[error("stream {stream} refused an event")]
    Refused {
        /// The event's stream.
        stream: String,
    },
    /// The broker cancelled the consumer, for example because its stream was deleted.
    #[error("broker cancelled the consumer of {queue}")]
    Cancelled {
        /// The name of the queue or stream.
        queue: String,
    },
    /// A message has no offset, so the queue is not a stream.
    #[error("queue {stream} is not a stream")]
    NotAStream {
        /// The name of the queue.
        stream: String,
    },
    /// A stream has a topic's name but does not begin with the number of the topic's streams.
    #[error("stream {name} does not begin with its number of streams")]
    NotATopic {
        /// The name of the stream.
        name: String,
    },
    /// A task that delivers events ended unexpectedly, for example by a panic in a handler.
    #[error("delivery ended unexpectedly: {detail}")]
    TaskEnded {
        /// The cause.
        detail: String,
    },
}

/// AMQP's reply codes of permanent errors: access refused, precondition failed, not allowed, not implemented.
const PERMANENT: [u16; 4] = [403, 406, 530, 540];

impl Error {
    pub(crate) fn broker(step: impl Into<String>) -> impl FnOnce(lapin::Error) -> Self {
        let step = step.into();
        |source| Self::Broker { step, source }
    }

    /// Returns whether the error is permanent, so that a retry cannot succeed.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        match self {
            Self::Address { .. }
            | Self::Authorities { .. }
            | Self::Certificate { .. }
            | Self::Name { .. }
            | Self::Registry { .. }
            | Self::NotAStream { .. }
            | Self::NotATopic { .. }
            | Self::TaskEnded { .. } => true,
            Self::Broker { source, .. } => reply_code(source).is_some_and(|code| PERMANENT.contains(&code)),
            Self::Frame { .. } | Self::Timeout { .. } | Self::Refused { .. } | Self::Cancelled { .. } => false,
        }
    }
}

fn reply_code(error: &lapin::Error) -> Option<u16> {
    match error.kind() {
        ErrorKind::ProtocolError(error) => Some(error.get_id()),
        _ => None,
    }
}

//! What can go wrong between Epoch and a broker.
//!
//! The problem: "it didn't work" at three in the morning.
//! The invariant: every error names what it was about, and keeps its source.

use std::time::Duration;

use epoch_registry::RegistryError;
use lapin::ErrorKind;

/// A fault of the broker, of the way to it, or of how it is used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address can't be read. It isn't repeated: there may be a password in it.
    #[error("the broker's address is not valid: {detail}")]
    Address {
        /// What is wrong with it.
        detail: String,
    },
    /// The authorities that may vouch for the broker can't be used.
    #[error("the certificates of authorities are not valid: {detail}")]
    Authorities {
        /// What is wrong with them.
        detail: String,
    },
    /// The broker's certificate isn't signed by an authority that is trusted, isn't for its host, or isn't valid today.
    #[error("the broker's certificate is not accepted")]
    Certificate {
        /// What was found.
        source: lapin::Error,
    },
    /// A name is longer than AMQP allows.
    #[error("the name {name} is longer than 255 bytes")]
    Name {
        /// Which.
        name: String,
    },
    /// The schema registry can't be used as it is set.
    #[error("schemas can't be registered")]
    Registry {
        /// Why.
        source: RegistryError,
    },
    /// An event's schema has no number in the registry so far.
    #[error("an event for topic {topic} can't be framed")]
    Frame {
        /// Where it should have gone.
        topic: String,
        /// What the registry said.
        source: RegistryError,
    },
    /// The broker said no, or the connection broke.
    #[error("{step} failed")]
    Broker {
        /// What was tried.
        step: String,
        /// What lapin said.
        source: lapin::Error,
    },
    /// The broker said nothing for too long.
    #[error("nothing was heard for {waited:?} while trying: {step}")]
    Silence {
        /// What was tried.
        step: String,
        /// How long.
        waited: Duration,
    },
    /// The broker has no such stream any more, or couldn't take an event.
    #[error("an event was refused by stream {stream}")]
    Refused {
        /// Where it should have gone.
        stream: String,
    },
    /// The broker ended the consumer, for example because its stream was deleted.
    #[error("the broker ended the consumer of {queue}")]
    Cancelled {
        /// Of which queue.
        queue: String,
    },
    /// A message has no offset, so the queue isn't a stream.
    #[error("{stream} is not a stream")]
    NotAStream {
        /// Which.
        stream: String,
    },
    /// A stream has a topic's name and doesn't begin like one.
    #[error("{name} does not begin with its number of streams")]
    NotATopic {
        /// Which.
        name: String,
    },
    /// A task that delivers events has died.
    #[error("delivery ended unexpectedly: {detail}")]
    Died {
        /// What was seen.
        detail: String,
    },
}

/// AMQP's reply codes for what doesn't pass by itself: access refused, a queue of another kind, not allowed, not implemented.
const FOR_GOOD: [u16; 4] = [403, 406, 530, 540];

impl Error {
    pub(crate) fn broker(step: impl Into<String>) -> impl FnOnce(lapin::Error) -> Self {
        let step = step.into();
        |source| Self::Broker { step, source }
    }

    /// Whether trying again makes no sense.
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
            | Self::Died { .. } => true,
            Self::Broker { source, .. } => reply_code(source).is_some_and(|code| FOR_GOOD.contains(&code)),
            Self::Frame { .. } | Self::Silence { .. } | Self::Refused { .. } | Self::Cancelled { .. } => false,
        }
    }
}

fn reply_code(error: &lapin::Error) -> Option<u16> {
    match error.kind() {
        ErrorKind::ProtocolError(error) => Some(error.get_id()),
        _ => None,
    }
}

/// An error and its sources in one line, for those that keep only text.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

//! Publishing of events in order.
//!
//! All events are published on one channel, in order, starting with the first unacknowledged one. A channel preserves the order, and
//! when it ends, all events after a certain one are missing. Each attempt therefore leaves a gapless sequence in every stream, and a
//! repetition may duplicate events but never reorders them.
//!
//! For this, one publication at a time uses the channel, and when an event fails, the connection is dropped with all events in flight.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use epoch::{
    bus::{PublishError, count_published},
    envelope::{Batch, Envelope},
    error_chain,
    message::Frame,
    retry::RetryPolicy,
};
use epoch_registry::Framing;
use lapin::{
    Channel, Confirmation, Connection, PublisherConfirm,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::ShortString,
};
use tokio::sync::Semaphore;

use crate::{
    config::RabbitConfig,
    connection::{connect, lock, open_channel, short_string, with_timeout},
    error::Error,
    message,
    topic::{self, Topic},
};

/// The maximum number of events in flight.
const WINDOW: usize = 1_000;
/// The delays between attempts to open a channel and declare topics.
const PREPARE: RetryPolicy =
    RetryPolicy { attempts: u32::MAX, first: Duration::from_millis(50), limit: Duration::from_secs(1) };

pub(crate) struct Publisher {
    config: RabbitConfig,
    framing: Option<Arc<Framing>>,
    /// Admits one publication at a time.
    permit: Semaphore,
    /// Taken out while in use, so that a cancelled publication drops it with its events in flight.
    channel: std::sync::Mutex<Option<PublishChannel>>,
}

/// A channel with publisher confirms, and the topics that were declared on its connection.
struct PublishChannel {
    connection: Connection,
    channel: Channel,
    topics: HashMap<String, Topic>,
}

impl Publisher {
    pub(crate) fn new(config: RabbitConfig, framing: Option<Arc<Framing>>) -> Self {
        Self { config, framing, permit: Semaphore::new(1), channel: std::sync::Mutex::default() }
    }

    /// Publishes the events in order. The error counts the acknowledged events at the beginning of the batch.
    pub(crate) async fn publish(&self, events: &Batch) -> Result<(), PublishError> {
        let Ok(_permit) = self.permit.acquire().await else { return Ok(()) };
        let mut acknowledged = 0;
        let result = self.send(events, &mut acknowledged).await;
        count_published(events.get(..acknowledged).unwrap_or_default());
        result.map_err(|error| PublishError { acknowledged, offered: events.len(), detail: error_chain(&error) })
    }

    async fn send(&self, events: &Batch, acknowledged: &mut usize) -> Result<(), Error> {
        let channel = self.prepare(events).await?;
        let mut result = Ok(());
        for window in events.chunks(WINDOW) {
            let mut framed = Vec::with_capacity(window.len());
            result = self.frame(window, &mut framed).await;
            channel.send(&self.config, &framed, acknowledged).await?;
            if result.is_err() {
                break;
            }
        }
        *lock(&self.channel) = Some(channel);
        result
    }

    /// Appends the events and their frames to `framed`, up to the first event whose schema has no registry id.
    ///
    /// The events before that one are published; it and the later ones wait.
    async fn frame<'e>(&self, events: &'e Batch, framed: &mut Vec<(&'e Envelope, Frame)>) -> Result<(), Error> {
        for event in events {
            let frame = match &self.framing {
                None => Frame::Fingerprint(event.schema),
                Some(framing) => {
                    let topic = self.config.topic(&event.aggregate);
                    framing.frame(&topic, event.schema).await.map_err(|source| Error::Frame { topic, source })?
                }
            };
            framed.push((event, frame));
        }
        Ok(())
    }

    /// Returns a channel on which the topics of these events are declared.
    ///
    /// Nothing is published yet, so temporary errors are retried here. For example, a broker closes the connection when two processes
    /// declare the same stream at once.
    async fn prepare(&self, events: &Batch) -> Result<PublishChannel, Error> {
        let start = Instant::now();
        let mut failed = 0;
        loop {
            let open = lock(&self.channel).take().filter(|channel| channel.channel.status().connected());
            let preparing = async {
                let mut channel = match open {
                    Some(channel) => channel,
                    None => PublishChannel::open(&self.config).await?,
                };
                channel.ensure_topics(&self.config, events).await?;
                Ok(channel)
            };
            let error: Error = match preparing.await {
                Ok(channel) => return Ok(channel),
                Err(error) => error,
            };
            if error.is_fatal() || start.elapsed() > self.config.timeout {
                return Err(error);
            }
            failed += 1;
            tracing::debug!(error = error_chain(&error), failed, "cannot publish yet; retrying");
            tokio::time::sleep(PREPARE.wait(failed)).await;
        }
    }
}

impl PublishChannel {
    async fn open(config: &RabbitConfig) -> Result<Self, Error> {
        let connection = connect(config, &format!("{} publishes", config.group_prefix)).await?;
        let channel = open_channel(config, &connection).await?;
        let selecting = channel.confirm_select(ConfirmSelectOptions::default());
        with_timeout(config.timeout, "enabling publisher confirms", selecting).await?;
        Ok(Self { connection, channel, topics: HashMap::new() })
    }

    /// Publishes the events, then waits for their confirmations in order.
    async fn send(
        &self,
        config: &RabbitConfig,
        events: &[(&Envelope, Frame)],
        acknowledged: &mut usize,
    ) -> Result<(), Error> {
        let mut sent = Vec::with_capacity(events.len());
        let mut result = Ok(());
        for (event, frame) in events {
            match self.publish(config, event, *frame).await {
                Ok(confirm) => sent.push(confirm),
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        for (stream, confirm) in sent {
            match with_timeout(config.timeout, &format!("publishing to {stream}"), confirm).await? {
                Confirmation::Ack(None) => *acknowledged += 1,
                // Returned because the stream does not exist, or not written.
                Confirmation::Ack(Some(_)) | Confirmation::Nack(_) | Confirmation::NotRequested => {
                    return Err(Error::Refused { stream: stream.as_str().to_owned() });
                }
            }
        }
        result
    }

    async fn publish(
        &self,
        config: &RabbitConfig,
        event: &Envelope,
        frame: Frame,
    ) -> Result<(ShortString, PublisherConfirm), Error> {
        let stream =
            self.topics.get(&*event.aggregate).map(|topic| topic.stream(topic.partition_of(event.aggregate_id)));
        let stream = short_string(&stream.unwrap_or_default())?;
        let (properties, body) = message::write(event, &config.namespace, frame)?;
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let publishing = self.channel.basic_publish(short_string("")?, stream.clone(), options, &body, properties);
        Ok((stream, with_timeout(config.timeout, "publishing an event", publishing).await?))
    }

    /// Declares the topics of these events, unless they were declared before.
    async fn ensure_topics(&mut self, config: &RabbitConfig, events: &Batch) -> Result<(), Error> {
        for event in events {
            if !self.topics.contains_key(&*event.aggregate) {
                let topic = topic::ensure(config, &self.connection, &config.topic(&event.aggregate)).await?;
                self.topics.insert(event.aggregate.to_string(), topic);
            }
        }
        Ok(())
    }
}

//! Publishing.
//!
//! The problem: of a thousand events in flight one is refused, or the connection breaks, and what comes behind it must not get
//! ahead of it.
//!
//! The invariant: events go out on one channel, in the order given, from the first that isn't acknowledged. A channel keeps their
//! order, and its end cuts them off at one place; so each attempt leaves, in every stream, a run without holes, and sending
//! again repeats events but never turns two round. Kept by giving the connection up with everything on it when one event
//! fails, and by one publication having it at a time.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use epoch::{
    bus::PublishError,
    envelope::{Batch, Envelope},
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
    connection::{channel, connect, lock, short, within},
    error::{Error, chain},
    message,
    topic::{self, Topic},
};

/// How many events may be on their way at once.
const WINDOW: usize = 1_000;
/// Waits between attempts to get ready.
const PREPARE: RetryPolicy =
    RetryPolicy { attempts: u32::MAX, first: Duration::from_millis(50), limit: Duration::from_secs(1) };

pub(crate) struct Publisher {
    config: RabbitConfig,
    framing: Option<Arc<Framing>>,
    /// One publication at a time.
    turn: Semaphore,
    /// Taken out while in use, so that who is cancelled in the middle takes it along.
    line: std::sync::Mutex<Option<Line>>,
}

/// A connection and what is known on it.
struct Line {
    connection: Connection,
    channel: Channel,
    topics: HashMap<String, Topic>,
}

impl Publisher {
    pub(crate) fn new(config: RabbitConfig, framing: Option<Arc<Framing>>) -> Self {
        Self { config, framing, turn: Semaphore::new(1), line: std::sync::Mutex::default() }
    }

    /// Publishes in order and reports how many of the first ones are safe.
    pub(crate) async fn publish(&self, events: &Batch) -> Result<(), PublishError> {
        let Ok(_turn) = self.turn.acquire().await else { return Ok(()) };
        let mut acknowledged = 0;
        let result = self.send(events, &mut acknowledged).await;
        let same = |one: &Arc<Envelope>, next: &Arc<Envelope>| one.aggregate == next.aggregate;
        for run in events.get(..acknowledged).unwrap_or_default().chunk_by(same) {
            if let Some(event) = run.first() {
                metrics::counter!("epoch_bus_published_total", "aggregate" => event.aggregate.to_string())
                    .increment(run.len() as u64);
            }
        }
        result.map_err(|error| PublishError { acknowledged, offered: events.len(), detail: chain(&error) })
    }

    async fn send(&self, events: &Batch, acknowledged: &mut usize) -> Result<(), Error> {
        let line = self.ready(events).await?;
        let mut result = Ok(());
        for window in events.chunks(WINDOW) {
            let mut framed = Vec::with_capacity(window.len());
            result = self.frame(window, &mut framed).await;
            line.send(&self.config, &framed, acknowledged).await?;
            if result.is_err() {
                break;
            }
        }
        *lock(&self.line) = Some(line);
        result
    }

    /// Finds out what stands before the events' payloads, as far as the registry answers: one that has no answer holds up what comes
    /// behind it and nothing else.
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

    /// A line that knows the topics of these events. Nothing is sent yet, so whatever passes by itself is tried again: a broker
    /// breaks a connection off when two declare the same stream at once.
    async fn ready(&self, events: &Batch) -> Result<Line, Error> {
        let start = Instant::now();
        let mut failed = 0;
        loop {
            let known = lock(&self.line).take().filter(|line| line.channel.status().connected());
            let ready = async {
                let mut line = match known {
                    Some(line) => line,
                    None => Line::open(&self.config).await?,
                };
                line.learn(&self.config, events).await?;
                Ok(line)
            };
            let error: Error = match ready.await {
                Ok(line) => return Ok(line),
                Err(error) => error,
            };
            if error.is_fatal() || start.elapsed() > self.config.timeout {
                return Err(error);
            }
            failed += 1;
            tracing::debug!(error = chain(&error), failed, "not ready to publish yet");
            tokio::time::sleep(PREPARE.wait(failed)).await;
        }
    }
}

impl Line {
    async fn open(config: &RabbitConfig) -> Result<Self, Error> {
        let connection = connect(config, &format!("{} publishes", config.group_prefix)).await?;
        let channel = channel(config, &connection).await?;
        let selecting = channel.confirm_select(ConfirmSelectOptions::default());
        within(config.timeout, "asking for confirmations", selecting).await?;
        Ok(Self { connection, channel, topics: HashMap::new() })
    }

    /// Sends all, then waits for the broker's word about each, in order.
    async fn send(
        &self,
        config: &RabbitConfig,
        events: &[(&Envelope, Frame)],
        acknowledged: &mut usize,
    ) -> Result<(), Error> {
        let mut sent = Vec::with_capacity(events.len());
        let mut result = Ok(());
        for (event, frame) in events {
            match self.queue(config, event, *frame).await {
                Ok(confirm) => sent.push(confirm),
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        for (stream, confirm) in sent {
            match within(config.timeout, &format!("publishing to {stream}"), confirm).await? {
                Confirmation::Ack(None) => *acknowledged += 1,
                // Sent back as there is no such stream, or not written.
                Confirmation::Ack(Some(_)) | Confirmation::Nack(_) | Confirmation::NotRequested => {
                    return Err(Error::Refused { stream: stream.as_str().to_owned() });
                }
            }
        }
        result
    }

    async fn queue(
        &self,
        config: &RabbitConfig,
        event: &Envelope,
        frame: Frame,
    ) -> Result<(ShortString, PublisherConfirm), Error> {
        let stream =
            self.topics.get(&*event.aggregate).map(|topic| topic.stream(topic.partition_of(event.aggregate_id)));
        let stream = short(&stream.unwrap_or_default())?;
        let (properties, body) = message::write(event, &config.namespace, frame)?;
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let publishing = self.channel.basic_publish(short("")?, stream.clone(), options, &body, properties);
        Ok((stream, within(config.timeout, "sending an event", publishing).await?))
    }

    /// Makes sure that it knows the topics of these events.
    async fn learn(&mut self, config: &RabbitConfig, events: &Batch) -> Result<(), Error> {
        for event in events {
            if !self.topics.contains_key(&*event.aggregate) {
                let topic = topic::ensure(config, &self.connection, &config.topic(&event.aggregate)).await?;
                self.topics.insert(event.aggregate.to_string(), topic);
            }
        }
        Ok(())
    }
}

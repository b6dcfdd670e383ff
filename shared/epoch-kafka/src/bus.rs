//! [`KafkaBus`], the implementation of [`Bus`] on Kafka.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use epoch::{
    bus::{Bus, ConsumeError, PublishError},
    envelope::Batch,
    error_chain,
    handler::Subscription,
};
use epoch_registry::{Framing, SchemaRegistry};
use tokio_util::sync::CancellationToken;

use crate::{
    config::KafkaConfig,
    consumer,
    error::Error,
    health::{ConsumerHealth, Health, Unhealthy},
    publisher::Publisher,
    topics::Topics,
};

/// The time limit for the last commit and for leaving the group.
const LEAVE: Duration = Duration::from_secs(5);

/// Epoch's bus on Kafka or a compatible broker such as Redpanda.
pub struct KafkaBus {
    config: KafkaConfig,
    topics: Topics,
    publisher: Publisher,
    framing: Option<Arc<Framing>>,
    health: Health,
}

impl KafkaBus {
    /// Creates a bus for the configured broker, which may still be down.
    ///
    /// # Errors
    /// [`Error::Settings`] when librdkafka rejects a setting.
    pub fn connect(config: KafkaConfig) -> Result<Self, Error> {
        Self::with_framing(config, None)
    }

    /// Creates a bus that frames events with ids of a schema registry, which may still be down.
    ///
    /// `schemas` lists every schema that is published, including earlier versions, in the format of
    /// [`DomainEvent::SCHEMAS`](epoch::DomainEvent::SCHEMAS).
    ///
    /// # Errors
    /// [`Error::Settings`] when librdkafka rejects a setting, [`Error::Registry`] when a schema does not describe an event.
    pub fn connect_with(
        config: KafkaConfig,
        registry: Arc<dyn SchemaRegistry>,
        schemas: &[&str],
    ) -> Result<Self, Error> {
        let framing = Framing::new(registry, schemas).map_err(|source| Error::Registry { source })?;
        Self::with_framing(config, Some(Arc::new(framing)))
    }

    fn with_framing(config: KafkaConfig, framing: Option<Arc<Framing>>) -> Result<Self, Error> {
        let (topics, publisher) = (Topics::new(&config)?, Publisher::new(&config, framing.clone())?);
        Ok(Self { config, topics, publisher, framing, health: Health::default() })
    }

    /// Creates the missing topics of these aggregates. `publish` and `consume` do so before their first use of a topic.
    ///
    /// # Errors
    /// [`Error::Admin`] when the request fails, [`Error::Topic`] when the broker refuses to create a topic.
    pub async fn ensure_topics(&self, aggregates: &[&str]) -> Result<(), Error> {
        self.topics.ensure(aggregates.iter().map(|aggregate| self.config.topic(aggregate))).await
    }

    /// Checks that all running consumers make progress or are idle.
    ///
    /// # Errors
    /// [`Unhealthy`] names a subscription that does not recover without a restart of the process.
    pub fn healthy(&self) -> Result<(), Unhealthy> {
        self.health.check()
    }

    async fn consume_until(
        &self,
        subscription: Arc<dyn Subscription>,
        stop: CancellationToken,
        health: Arc<ConsumerHealth>,
    ) -> Result<(), Error> {
        let aggregates = subscription.aggregates();
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            ensured = self.ensure_topics(aggregates) => if let Err(error) = ensured {
                tracing::warn!(subscription = subscription.name(), error = error_chain(&error), "cannot create missing topics; consuming the existing ones");
            }
        }
        let topics: Vec<_> = aggregates.iter().map(|aggregate| self.config.topic(aggregate)).collect();
        // The thread also stops when this future is dropped.
        let stop = stop.child_token();
        let _stop_when_dropped = stop.clone().drop_guard();
        let thread = consumer::start(&self.config, subscription, self.framing.clone(), &topics, stop, health)?;
        let result = thread.ended.await.unwrap_or_else(|_| Err(Error::Thread { detail: "panicked".to_owned() }));
        if tokio::time::timeout(LEAVE, thread.left).await.is_err() {
            tracing::warn!(?topics, "left the group without the broker's confirmation");
        }
        result
    }
}

#[async_trait]
impl Bus for KafkaBus {
    async fn publish(&self, events: &Batch) -> Result<(), PublishError> {
        let mut aggregates: Vec<&str> = events.iter().map(|event| &*event.aggregate).collect();
        aggregates.dedup();
        let ensured = self.ensure_topics(&aggregates).await;
        ensured.map_err(|error| PublishError {
            acknowledged: 0,
            offered: events.len(),
            detail: error_chain(&error),
        })?;
        self.publisher.publish(events).await
    }

    async fn consume(&self, subscription: Arc<dyn Subscription>, stop: CancellationToken) -> Result<(), ConsumeError> {
        let name = subscription.name().to_owned();
        if subscription.aggregates().is_empty() {
            stop.cancelled().await;
            return Ok(());
        }
        let registration = self.health.register(&name, self.config.stuck_after);
        let result = self.consume_until(subscription, stop, Arc::clone(&registration.consumer)).await;
        result.map_err(|error| {
            let detail = error_chain(&error);
            registration.consumer.record_failure(detail.clone());
            ConsumeError { subscription: name, detail }
        })
    }
}

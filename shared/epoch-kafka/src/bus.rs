//! The bus itself.
//!
//! The problem: services know [`Bus`], not brokers.
//! The invariant: what the trait promises; see [the crate](crate) for how.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use epoch::{
    bus::{Bus, ConsumeError, PublishError},
    envelope::Batch,
    handler::Subscription,
};
use epoch_registry::{Framing, SchemaRegistry};
use tokio_util::sync::CancellationToken;

use crate::{
    config::KafkaConfig,
    consumer,
    error::{Error, chain},
    health::{ConsumerHealth, Health, Unhealthy},
    publisher::Publisher,
    topics::Topics,
};

/// How long to wait for the last commit and the farewell to the group.
const LEAVE: Duration = Duration::from_secs(5);

/// Epoch's bus on Kafka, or on anything that speaks its protocol.
pub struct KafkaBus {
    config: KafkaConfig,
    topics: Topics,
    publisher: Publisher,
    framing: Option<Arc<Framing>>,
    health: Health,
}

impl KafkaBus {
    /// A bus on the configured broker, which needn't be there yet.
    ///
    /// # Errors
    /// [`Error::Settings`] when librdkafka refuses a setting.
    pub fn connect(config: KafkaConfig) -> Result<Self, Error> {
        Self::framed(config, None)
    }

    /// The same with a schema registry, which needn't be there yet either. `schemas` are those of all events that are published,
    /// earlier versions included, as [`DomainEvent::SCHEMAS`](epoch::DomainEvent::SCHEMAS) has them.
    ///
    /// # Errors
    /// [`Error::Settings`] when librdkafka refuses a setting, [`Error::Registry`] when a schema doesn't describe an event.
    pub fn connect_with(
        config: KafkaConfig,
        registry: Arc<dyn SchemaRegistry>,
        schemas: &[&str],
    ) -> Result<Self, Error> {
        let framing = Framing::new(registry, schemas).map_err(|source| Error::Registry { source })?;
        Self::framed(config, Some(Arc::new(framing)))
    }

    fn framed(config: KafkaConfig, framing: Option<Arc<Framing>>) -> Result<Self, Error> {
        let (topics, publisher) = (Topics::new(&config)?, Publisher::new(&config, framing.clone())?);
        Ok(Self { config, topics, publisher, framing, health: Health::default() })
    }

    /// Creates the topics of these aggregates where they are missing. `publish` and `consume` do it before they use one.
    ///
    /// # Errors
    /// [`Error::Admin`] when the broker can't be asked, [`Error::Topic`] when it refuses.
    pub async fn ensure_topics(&self, aggregates: &[&str]) -> Result<(), Error> {
        self.topics.ensure(aggregates.iter().map(|aggregate| self.config.topic(aggregate))).await
    }

    /// Whether all that are consuming can go on.
    ///
    /// # Errors
    /// [`Unhealthy`] names one that can't: restart the process.
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
                tracing::warn!(subscription = subscription.name(), error = chain(&error), "consuming the topics that there are");
            }
        }
        let topics: Vec<_> = aggregates.iter().map(|aggregate| self.config.topic(aggregate)).collect();
        // Whoever drops this future stops the thread as well.
        let stop = stop.child_token();
        let _stop_when_dropped = stop.clone().drop_guard();
        let consuming = consumer::start(&self.config, subscription, self.framing.clone(), &topics, stop, health)?;
        let result = consuming.ended.await.unwrap_or_else(|_| Err(Error::Thread { detail: "it panicked".to_owned() }));
        if tokio::time::timeout(LEAVE, consuming.left).await.is_err() {
            tracing::warn!(?topics, "the group is left without the broker's word");
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
        ensured.map_err(|error| PublishError { acknowledged: 0, offered: events.len(), detail: chain(&error) })?;
        self.publisher.publish(events).await
    }

    async fn consume(&self, subscription: Arc<dyn Subscription>, stop: CancellationToken) -> Result<(), ConsumeError> {
        let name = subscription.name().to_owned();
        if subscription.aggregates().is_empty() {
            stop.cancelled().await;
            return Ok(());
        }
        let registered = self.health.register(&name, self.config.stuck_after);
        let result = self.consume_until(subscription, stop, Arc::clone(&registered.consumer)).await;
        result.map_err(|error| {
            let detail = chain(&error);
            registered.consumer.failed(detail.clone());
            ConsumeError { subscription: name, detail }
        })
    }
}

//! The bus itself.
//!
//! The problem: services know [`Bus`], not brokers.
//! The invariant: what the trait promises; see [the crate](crate) for how.

use std::sync::Arc;

use async_trait::async_trait;
use epoch::{
    bus::{Bus, ConsumeError, PublishError},
    envelope::Batch,
    handler::Subscription,
};
use epoch_registry::{Framing, SchemaRegistry};
use tokio_util::sync::CancellationToken;

use crate::{
    config::RabbitConfig,
    connection::address,
    consumer,
    error::{Error, chain},
    publisher::Publisher,
};

/// Epoch's bus on RabbitMQ 3.10 or newer.
pub struct RabbitBus {
    config: RabbitConfig,
    publisher: Publisher,
    framing: Option<Arc<Framing>>,
}

impl RabbitBus {
    /// A bus on the configured broker, which needn't be there yet.
    ///
    /// # Errors
    /// [`Error::Address`] when the address can't be read, [`Error::Authorities`] when the authorities can't be used.
    pub fn new(config: RabbitConfig) -> Result<Self, Error> {
        Self::framed(config, None)
    }

    /// The same with a schema registry, which needn't be there yet either. `schemas` are those of all events that are published,
    /// earlier versions included, as [`DomainEvent::SCHEMAS`](epoch::DomainEvent::SCHEMAS) has them.
    ///
    /// # Errors
    /// As [`new`](Self::new), and [`Error::Registry`] when a schema doesn't describe an event.
    pub fn new_with(config: RabbitConfig, registry: Arc<dyn SchemaRegistry>, schemas: &[&str]) -> Result<Self, Error> {
        let framing = Framing::new(registry, schemas).map_err(|source| Error::Registry { source })?;
        Self::framed(config, Some(Arc::new(framing)))
    }

    fn framed(config: RabbitConfig, framing: Option<Arc<Framing>>) -> Result<Self, Error> {
        address(&config)?;
        Ok(Self { publisher: Publisher::new(config.clone(), framing.clone()), config, framing })
    }
}

#[async_trait]
impl Bus for RabbitBus {
    async fn publish(&self, events: &Batch) -> Result<(), PublishError> {
        self.publisher.publish(events).await
    }

    async fn consume(&self, subscription: Arc<dyn Subscription>, stop: CancellationToken) -> Result<(), ConsumeError> {
        consumer::consume(&self.config, &self.framing, &subscription, &stop)
            .await
            .map_err(|error| ConsumeError { subscription: subscription.name().to_owned(), detail: chain(&error) })
    }
}

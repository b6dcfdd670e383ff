//! [`RabbitBus`], the implementation of [`Bus`] on RabbitMQ streams.

use std::sync::Arc;

use async_trait::async_trait;
use epoch::{
    bus::{Bus, ConsumeError, PublishError},
    envelope::Batch,
    error_chain,
    handler::Subscription,
};
use epoch_registry::{Framing, SchemaRegistry};
use tokio_util::sync::CancellationToken;

use crate::{config::RabbitConfig, connection::parse_address, consumer, error::Error, publisher::Publisher};

/// Epoch's bus on RabbitMQ 3.10 or newer.
pub struct RabbitBus {
    config: RabbitConfig,
    publisher: Publisher,
    framing: Option<Arc<Framing>>,
}

impl RabbitBus {
    /// Creates a bus for the configured broker, which may still be down.
    ///
    /// # Errors
    /// [`Error::Address`] when the address is invalid, [`Error::Authorities`] when the certificate authorities are invalid.
    pub fn new(config: RabbitConfig) -> Result<Self, Error> {
        Self::with_framing(config, None)
    }

    /// Creates a bus that frames events with ids of a schema registry, which may still be down.
    ///
    /// `schemas` lists every schema that is published, including earlier versions, in the format of
    /// [`DomainEvent::SCHEMAS`](epoch::DomainEvent::SCHEMAS).
    ///
    /// # Errors
    /// The errors of [`new`](Self::new), and [`Error::Registry`] when a schema does not describe an event.
    pub fn new_with(config: RabbitConfig, registry: Arc<dyn SchemaRegistry>, schemas: &[&str]) -> Result<Self, Error> {
        let framing = Framing::new(registry, schemas).map_err(|source| Error::Registry { source })?;
        Self::with_framing(config, Some(Arc::new(framing)))
    }

    fn with_framing(config: RabbitConfig, framing: Option<Arc<Framing>>) -> Result<Self, Error> {
        parse_address(&config)?;
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
            .map_err(|error| ConsumeError { subscription: subscription.name().to_owned(), detail: error_chain(&error) })
    }
}

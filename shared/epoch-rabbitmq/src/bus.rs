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
use tokio_util::sync::CancellationToken;

use crate::{
    client::address,
    config::RabbitConfig,
    consumer,
    error::{Error, chain},
    publisher::Publisher,
};

/// Epoch's bus on RabbitMQ 3.10 or newer.
pub struct RabbitBus {
    config: RabbitConfig,
    publisher: Publisher,
}

impl RabbitBus {
    /// A bus on the configured broker, which needn't be there yet.
    ///
    /// # Errors
    /// [`Error::Address`] when the address can't be read, [`Error::Authorities`] when the authorities can't be used.
    pub fn new(config: RabbitConfig) -> Result<Self, Error> {
        address(&config)?;
        Ok(Self { publisher: Publisher::new(config.clone()), config })
    }
}

#[async_trait]
impl Bus for RabbitBus {
    async fn publish(&self, events: &Batch) -> Result<(), PublishError> {
        self.publisher.publish(events).await
    }

    async fn consume(&self, subscription: Arc<dyn Subscription>, stop: CancellationToken) -> Result<(), ConsumeError> {
        consumer::consume(&self.config, &subscription, &stop)
            .await
            .map_err(|error| ConsumeError { subscription: subscription.name().to_owned(), detail: chain(&error) })
    }
}

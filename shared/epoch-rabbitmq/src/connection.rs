//! Connections, and what is common to their use.
//!
//! The problem: a connection can hang at every step, and AMQP's names are short strings whose conversion panics.
//! The invariant: every step ends within the configured time, and no name from outside can panic.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use lapin::{Channel, Connection, ConnectionProperties, runtime::default_runtime, types::ShortString, uri::AMQPUri};

use crate::{config::RabbitConfig, error::Error, tls};

/// Reads the configured address, and what it takes to trust the broker there.
pub(crate) fn address(config: &RabbitConfig) -> Result<AMQPUri, Error> {
    let address: AMQPUri = config.url.parse().map_err(|detail| Error::Address { detail })?;
    tls::check(config, &address)?;
    Ok(address)
}

/// Connects; `name` is what the broker shows.
pub(crate) async fn connect(config: &RabbitConfig, name: &str) -> Result<Connection, Error> {
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let runtime = default_runtime().map_err(Error::broker("connecting"))?;
    let connecting = Connection::connect_uri_with_config(address(config)?, properties, tls::settings(config), runtime);
    within(config.timeout, "connecting", connecting).await.map_err(tls::tell_apart)
}

/// A new channel.
pub(crate) async fn channel(config: &RabbitConfig, connection: &Connection) -> Result<Channel, Error> {
    within(config.timeout, "opening a channel", connection.create_channel()).await
}

/// Waits for the broker's answer, but no longer than `limit`.
pub(crate) async fn within<T>(
    limit: Duration,
    step: &str,
    answer: impl Future<Output = Result<T, lapin::Error>>,
) -> Result<T, Error> {
    match tokio::time::timeout(limit, answer).await {
        Ok(answer) => answer.map_err(Error::broker(step)),
        Err(_) => Err(Error::Silence { step: step.to_owned(), waited: limit }),
    }
}

/// A name as AMQP wants it.
pub(crate) fn short(name: &str) -> Result<ShortString, Error> {
    ShortString::try_new(name).map_err(|_| Error::Name { name: name.to_owned() })
}

/// Locks even when another thread panicked while it held the lock: every change is whole before it is visible.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

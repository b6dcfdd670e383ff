//! Connections and channels.
//!
//! Every request has a time limit, because a connection can hang at any step. Names are converted without panics: AMQP limits them to
//! 255 bytes, and lapin's own conversion panics.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use lapin::{Channel, Connection, ConnectionProperties, runtime::default_runtime, types::ShortString, uri::AMQPUri};

use crate::{config::RabbitConfig, error::Error, tls};

/// Parses the configured address and checks the TLS settings.
pub(crate) fn parse_address(config: &RabbitConfig) -> Result<AMQPUri, Error> {
    let address: AMQPUri = config.url.parse().map_err(|detail| Error::Address { detail })?;
    tls::check(config, &address)?;
    Ok(address)
}

/// Connects under a name that RabbitMQ's management tools show.
pub(crate) async fn connect(config: &RabbitConfig, name: &str) -> Result<Connection, Error> {
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let runtime = default_runtime().map_err(Error::broker("connecting"))?;
    let address = parse_address(config)?;
    let connecting = Connection::connect_uri_with_config(address, properties, tls::settings(config), runtime);
    with_timeout(config.timeout, "connecting", connecting).await.map_err(tls::detect_certificate_error)
}

pub(crate) async fn open_channel(config: &RabbitConfig, connection: &Connection) -> Result<Channel, Error> {
    with_timeout(config.timeout, "opening a channel", connection.create_channel()).await
}

/// Waits for the broker's response to a request, for at most `limit`. `step` names the request in errors.
pub(crate) async fn with_timeout<T>(
    limit: Duration,
    step: &str,
    response: impl Future<Output = Result<T, lapin::Error>>,
) -> Result<T, Error> {
    match tokio::time::timeout(limit, response).await {
        Ok(response) => response.map_err(Error::broker(step)),
        Err(_) => Err(Error::Timeout { step: step.to_owned(), waited: limit }),
    }
}

/// Converts a name into AMQP's short string.
pub(crate) fn short_string(name: &str) -> Result<ShortString, Error> {
    ShortString::try_new(name).map_err(|_| Error::Name { name: name.to_owned() })
}

/// Locks the mutex even after a panic in another thread: every change under these locks leaves a consistent state.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Generations: which tables and cursors of a subscription are serving.
//!
//! During a rebuild a projection exists twice. When the two are swapped, other processes may be in the middle of a
//! batch, some of them with a handler of another revision. A transaction that moves cursors therefore holds the gate
//! lock of its generation shared, and the swap takes it exclusively: the transaction either ends before the swap or is
//! refused. A process works for the serving generation only if its handler has that generation's revision; until then
//! its batches fail as transient. The SQL function `epoch_enter` enforces this.

use std::{sync::Arc, time::Duration};

use sqlx::{FromRow, PgPool};

use crate::delivery::{error::HandlerError, handler::PgHandler};

/// A generation that a transaction can enter.
#[derive(Debug, Clone)]
pub(crate) struct Generation {
    pub(crate) subscription: Arc<str>,
    pub(crate) number: i64,
    /// The value of `subscription` in the rows of its cursors and dead letters.
    pub(crate) key: Arc<str>,
    /// How long one statement of the handler may take, in milliseconds.
    pub(crate) limit_ms: i64,
}

/// Returns the key of the serving generation's cursors, for a handler of any revision.
pub(crate) async fn serving_key(pool: &PgPool, subscription: &str) -> Result<String, sqlx::Error> {
    let query = "select key from generations where subscription = $1 and state = 'serving'";
    let key = sqlx::query_scalar(query).bind(subscription).fetch_optional(pool).await?;
    Ok(key.unwrap_or_else(|| subscription.to_owned()))
}

/// Returns the limit of one statement: longer than the handler's deadline, since the server reports its own timeout as
/// transient, and an exceeded deadline must not be.
pub(crate) fn limit_ms(deadline: Duration) -> i64 {
    const MARGIN: Duration = Duration::from_secs(1);
    i64::from(i32::try_from(deadline.saturating_add(MARGIN).as_millis()).unwrap_or(i32::MAX))
}

/// Returns the key of a generation's cursors.
pub(crate) fn key(subscription: &str, number: i64) -> String {
    if number == 1 { subscription.to_owned() } else { format!("{subscription}@{number}") }
}

#[derive(FromRow)]
pub(crate) struct ServingGeneration {
    #[sqlx(rename = "generation")]
    pub(crate) number: i64,
    pub(crate) revision: i64,
    pub(crate) key: String,
}

/// The query for a [`ServingGeneration`]; its parameters are the subscription and the revision of the handler.
pub(crate) const SERVING: &str = "select generation, revision, key from epoch_serving($1, $2)";

/// Returns the serving generation.
///
/// # Errors
/// [`HandlerError::OtherRevision`] when its tables were built by another revision than that of `handler`.
pub(crate) async fn serving(
    pool: &PgPool,
    handler: &dyn PgHandler,
    deadline: Duration,
) -> Result<Generation, HandlerError> {
    let own = i64::from(handler.revision());
    let serving: ServingGeneration = sqlx::query_as(SERVING).bind(handler.name()).bind(own).fetch_one(pool).await?;
    if serving.revision != own {
        return Err(HandlerError::OtherRevision { serving: serving.revision, own });
    }
    let (number, key) = (serving.number, serving.key.into());
    Ok(Generation { subscription: handler.name().into(), number, key, limit_ms: limit_ms(deadline) })
}

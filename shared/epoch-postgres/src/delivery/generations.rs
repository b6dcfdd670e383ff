//! Generations: which tables and cursors of a subscription are the ones in use.
//!
//! The problem: while a projection is rebuilt there are two of it, and when they are swapped other processes are in the middle
//! of a batch, some of them with a handler that makes something else of the same events.
//!
//! The invariant: a transaction that moves cursors holds the lock of the generation it works for, which a swap takes alone;
//! so it either ends before the swap looks, or is refused. A process works for the serving generation only if its handler has
//! that generation's revision; until then its batches come again. Kept by `epoch_enter` in `migrations/0006_generations.sql`.

use std::{sync::Arc, time::Duration};

use sqlx::{PgPool, Row};

use crate::delivery::handler::{HandlerError, PgHandler};

const SERVING: &str = "select generation, revision, key from epoch_serving($1, $2)";

/// What a transaction enters by.
#[derive(Debug, Clone)]
pub(crate) struct Generation {
    /// The subscription.
    pub(crate) subscription: Arc<str>,
    pub(crate) number: i64,
    /// What its cursors and dead letters are kept under.
    pub(crate) key: Arc<str>,
    /// How long one statement of the handler may take, in milliseconds.
    pub(crate) limit_ms: i64,
}

/// What the cursors of the generation in use are kept under.
pub(crate) async fn key_in_use(pool: &PgPool, subscription: &str) -> Result<String, sqlx::Error> {
    let query = "select key from generations where subscription = $1 and state = 'serving'";
    let key = sqlx::query_scalar(query).bind(subscription).fetch_optional(pool).await?;
    Ok(key.unwrap_or_else(|| subscription.to_owned()))
}

/// Longer than the handler's deadline: the server's word is that of a fault that passes, the deadline's is not.
pub(crate) fn limit_ms(deadline: Duration) -> i64 {
    const MORE: Duration = Duration::from_secs(1);
    i64::from(i32::try_from(deadline.saturating_add(MORE).as_millis()).unwrap_or(i32::MAX))
}

/// What the cursors of a subscription's generation are kept under.
pub(crate) fn key(subscription: &str, number: i64) -> String {
    if number == 1 { subscription.to_owned() } else { format!("{subscription}@{number}") }
}

/// The generation in use, if `handler` may work for it.
pub(crate) async fn serving(
    pool: &PgPool,
    handler: &dyn PgHandler,
    deadline: Duration,
) -> Result<Generation, HandlerError> {
    let own = i64::from(handler.revision());
    let row = sqlx::query(SERVING).bind(handler.name()).bind(own).fetch_one(pool).await?;
    let (number, revision, key): (i64, i64, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    if revision != own {
        return Err(HandlerError::OtherRevision { serving: revision, own });
    }
    Ok(Generation { subscription: handler.name().into(), number, key: key.into(), limit_ms: limit_ms(deadline) })
}

//! Swapping the new generation with the serving one.
//!
//! Between a check that the new generation is complete and its swap, the serving generation continues to apply events.
//! The swap therefore first takes the serving generation's gate lock exclusively: no transaction can move its cursors
//! then, and the check is valid until the commit. The lock is held for a bounded time, in which events wait and reads
//! continue. A reader that blocks the swap ends the attempt and is not disturbed.

use std::time::Duration;

use sqlx::PgConnection;
use tokio::time::Instant;

use crate::{
    database::{begin::begin, error::is_transient, rows::bigint},
    rebuild::{
        attempt::Attempt,
        building::Building,
        error::{RebuildError, tables_error},
        generation_row::{self, has_same_shape},
        retired::delete_retired_rows,
    },
};

/// How long events may wait while the new generation applies the last of them.
const GATE_TIMEOUT: Duration = Duration::from_secs(1);
/// How often the new generation is checked meanwhile.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

const CLOSE_GATE: &str = "select pg_advisory_xact_lock(epoch_gate($1, $2))";
const SERVE: &str = "update generations set state = 'serving' where subscription = $1 and generation = $2";

/// Replaces the serving generation. Returns `false` when that is not possible now.
pub(super) async fn swap(building: &Building, attempt: &mut Attempt) -> Result<bool, RebuildError> {
    let mut tx = begin(building.home.pool(), "begin").await?;
    // Shorter than the server's deadlock timeout, so that a deadlock never ends a reader. A slow handler's batch may
    // take longer; the next attempt waits for it again.
    sqlx::query("set local lock_timeout = '500ms'").execute(&mut *tx).await?;
    let swapped = match swap_in(&mut tx, building, attempt).await {
        Ok(swapped) => swapped,
        Err(SwapError::Blocked(error)) => {
            tracing::debug!(%error, "swap is blocked; trying again later");
            false
        }
        Err(SwapError::Rebuild(error)) => return Err(error),
    };
    if !swapped {
        tx.rollback().await?;
        return Ok(false);
    }
    tx.commit().await?;
    building.subscription.runner.progress.notify();
    let (subscription, generation) = (building.name, building.number);
    tracing::info!(subscription, generation, applied = attempt.applied(), "rebuilt");
    if let Err(error) = delete_retired_rows(&building.home, subscription).await {
        tracing::warn!(subscription, %error, "rows of the retired generation remain; the next rebuild deletes them");
    }
    Ok(true)
}

async fn swap_in(connection: &mut PgConnection, building: &Building, attempt: &mut Attempt) -> Result<bool, SwapError> {
    let name = building.name;
    sqlx::query(CLOSE_GATE).bind(name).bind(building.serving_number).execute(&mut *connection).await?;
    let deadline = Instant::now() + GATE_TIMEOUT;
    loop {
        while attempt.deliver_page(building).await? {}
        if building.missing_in(connection).await?.is_none() {
            break;
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    sqlx::query(CLOSE_GATE).bind(name).bind(bigint(building.number)).execute(&mut *connection).await?;
    if !has_same_shape(connection, &building.schema, building.tables).await? {
        let detail = "they were changed during the rebuild; the next rebuild starts over".to_owned();
        return Err(RebuildError::Tables { subscription: name.to_owned(), detail }.into());
    }
    let swap = sqlx::query("select epoch_swap_tables($1, $2)").bind(&building.schema).bind(building.tables);
    match swap.execute(&mut *connection).await {
        Ok(_) => {}
        Err(error) if is_blocked(&error) => return Err(SwapError::Blocked(error)),
        Err(error) => return Err(tables_error(name, error).into()),
    }
    generation_row::retire(connection, name, building.serving_number).await?;
    sqlx::query(SERVE).bind(name).bind(bigint(building.number)).execute(&mut *connection).await?;
    Ok(true)
}

enum SwapError {
    /// Another transaction holds a lock.
    Blocked(sqlx::Error),
    Rebuild(RebuildError),
}

/// Source: PostgreSQL 15 documentation, appendix A: lock_not_available.
fn is_blocked(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| code == "55P03") || is_transient(error)
}

impl From<sqlx::Error> for SwapError {
    fn from(error: sqlx::Error) -> Self {
        if is_blocked(&error) { Self::Blocked(error) } else { Self::Rebuild(error.into()) }
    }
}

impl From<RebuildError> for SwapError {
    fn from(error: RebuildError) -> Self {
        Self::Rebuild(error)
    }
}

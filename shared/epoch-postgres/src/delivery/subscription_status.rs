//! The status of a subscription, for operators: generations, revision and lag.

use epoch::store::StoreError;
use sqlx::FromRow;

use crate::{
    database::{error::store_error, rows::unsigned},
    delivery::{declared_tables::is_rebuildable, handler::PgHandler, lag::Lag, progress::Progress},
};

/// The current status of a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionStatus {
    /// The subscription's name.
    pub name: &'static str,
    /// The aggregates it listens to.
    pub aggregates: &'static [&'static str],
    /// Whether it can be rebuilt.
    pub rebuildable: bool,
    /// The serving generation; 1 until the first rebuild.
    pub generation: u64,
    /// The handler's revision that built the serving tables; `None` if the subscription never ran.
    pub revision: Option<u64>,
    /// The revision of this program's handler.
    pub own_revision: u64,
    /// The generation that is being built.
    pub building: Option<u64>,
    /// The lag on this service's log.
    pub lag: Lag,
}

#[derive(FromRow)]
struct GenerationRow {
    state: String,
    generation: i64,
    revision: i64,
}

impl Progress {
    /// Returns the status of the subscription of `handler`. Changes nothing.
    ///
    /// # Errors
    /// [`StoreError`] when the tables can't be read.
    pub async fn status(&self, handler: &dyn PgHandler) -> Result<SubscriptionStatus, StoreError> {
        let query =
            "select state, generation, revision from generations where subscription = $1 and state <> 'retired'";
        let rows = sqlx::query_as(query).bind(handler.name()).fetch_all(self.pool()).await;
        let rows: Vec<GenerationRow> = rows.map_err(|error| store_error(&error))?;
        let mut status = SubscriptionStatus {
            name: handler.name(),
            aggregates: handler.aggregates(),
            rebuildable: is_rebuildable(handler),
            generation: 1,
            revision: None,
            own_revision: u64::from(handler.revision()),
            building: None,
            lag: self.lag(handler.name(), handler.aggregates()).await?,
        };
        for row in rows {
            if row.state == "serving" {
                status.generation = unsigned(row.generation)?;
                status.revision = Some(unsigned(row.revision)?);
            } else {
                status.building = Some(unsigned(row.generation)?);
            }
        }
        Ok(status)
    }
}

//! What a subscription is, for those who look after it.
//!
//! The problem: which generation is in use, whether another is being built, and how far all of it is, lie in several tables.
//! The invariant: it is told as it is now, and asking changes nothing.

use epoch::store::StoreError;
use sqlx::Row;

use crate::{
    database::error::store_error, database::rows::count, delivery::declared_tables::rebuildable,
    delivery::handler::PgHandler, delivery::lag::Lag, delivery::progress::Progress,
};

/// A subscription as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionStatus {
    /// Its name.
    pub name: &'static str,
    /// The aggregates it listens to.
    pub aggregates: &'static [&'static str],
    /// Whether it can be rebuilt.
    pub rebuildable: bool,
    /// The generation in use; 1 until it is rebuilt.
    pub generation: u64,
    /// The handler's revision that the tables in use were made by; `None` when it never ran.
    pub revision: Option<u64>,
    /// The revision of this program's handler.
    pub own_revision: u64,
    /// The generation that is being built.
    pub building: Option<u64>,
    /// How far it is behind this service's log.
    pub lag: Lag,
}

impl Progress {
    /// What `handler`'s subscription is.
    ///
    /// # Errors
    /// [`StoreError`] when the tables can't be read.
    pub async fn status(&self, handler: &dyn PgHandler) -> Result<SubscriptionStatus, StoreError> {
        let query =
            "select state, generation, revision from generations where subscription = $1 and state <> 'retired'";
        let rows = sqlx::query(query).bind(handler.name()).fetch_all(self.pool()).await;
        let mut status = SubscriptionStatus {
            name: handler.name(),
            aggregates: handler.aggregates(),
            rebuildable: rebuildable(handler),
            generation: 1,
            revision: None,
            own_revision: u64::from(handler.revision()),
            building: None,
            lag: self.lag(handler.name(), handler.aggregates()).await?,
        };
        for row in rows.map_err(|error| store_error(&error))? {
            let read = || -> Result<(String, i64, i64), sqlx::Error> {
                Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))
            };
            let (state, generation, revision) = read().map_err(|error| store_error(&error))?;
            if state == "serving" {
                (status.generation, status.revision) = (count(generation)?, Some(count(revision)?));
            } else {
                status.building = Some(count(generation)?);
            }
        }
        Ok(status)
    }
}

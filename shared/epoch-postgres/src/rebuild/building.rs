//! A generation under construction, during one attempt.
//!
//! An attempt may end at any point, and two may start at once. One process at a time builds: it holds an advisory lock
//! that ends with its connection. A generation left by an earlier attempt is resumed if it fits this handler and these
//! tables; otherwise it is discarded first.

use std::sync::Arc;

use epoch::{FastPath, Position, envelope::StreamKey};
use sqlx::{Connection, FromRow, PgConnection, postgres::PgPoolOptions};
use uuid::Uuid;

use crate::{
    database::rows::{bigint, unsigned},
    delivery::{
        generations::{self, Generation, ServingGeneration},
        subscription::PgSubscription,
        write_checked_handler::WriteCheckedHandler,
    },
    rebuild::{
        error::RebuildError,
        generation_row::{self, BuildingRow, current_schema, has_same_shape, search_path},
        retired::delete_retired_rows,
    },
    store::pg_store::PgStore,
};

/// Connections for the new generation: one for the log, the others for the bus.
const CONNECTIONS: u32 = 6;

/// Returns the generation that is being built as a subscription, for its dead letters; `None` when there is none.
pub(super) async fn find_subscription(subscription: &PgSubscription) -> Result<Option<PgSubscription>, sqlx::Error> {
    let runner = &subscription.runner;
    let mut connection = runner.store.pool().acquire().await?;
    let Some(row) = generation_row::find(&mut connection, runner.handler.name()).await? else { return Ok(None) };
    let home = current_schema(&mut connection).await?;
    let handler = WriteCheckedHandler::new(Arc::clone(&runner.handler));
    Ok(Some(generation_subscription(subscription, &home, &row, handler)))
}

fn generation_subscription(
    subscription: &PgSubscription,
    home: &str,
    row: &BuildingRow,
    handler: Arc<WriteCheckedHandler>,
) -> PgSubscription {
    let runner = &subscription.runner;
    // The generation's own tables are found first. All others, including Epoch's, resolve in the home schema.
    let path = search_path(&row.schema, home);
    let options = runner.store.pool().connect_options().as_ref().clone().options([("search_path", path)]);
    let pool = PgPoolOptions::new().max_connections(CONNECTIONS).connect_lazy_with(options);
    // Only the handler appends by this store, in its own transactions, so no appender runs.
    let (store, _) = PgStore::new(pool, FastPath::new());
    let name = runner.handler.name();
    let key = generations::key(name, row.number).into();
    let limit_ms = generations::limit_ms(runner.deadline);
    let generation = Generation { subscription: name.into(), number: row.number, key, limit_ms };
    subscription.for_generation(handler, store, generation)
}

/// A generation that this process builds.
pub(super) struct Building {
    pub(super) subscription: PgSubscription,
    pub(super) home: PgStore,
    pub(super) number: u64,
    pub(super) schema: String,
    /// The position up to which earlier attempts have read the log.
    pub(super) position: Position,
    pub(super) resumed: bool,
    /// The name of the subscription.
    pub(super) name: &'static str,
    /// The serving generation.
    pub(super) serving_number: i64,
    /// The key of the serving generation's cursors.
    serving_key: String,
    pub(super) tables: &'static [&'static str],
    aggregates: &'static [&'static str],
    handler: Arc<WriteCheckedHandler>,
    /// Holds the advisory lock that admits one building process.
    lock: PgConnection,
}

impl Building {
    /// Takes the lock and resumes or creates a generation.
    pub(super) async fn begin(subscription: &PgSubscription) -> Result<Self, RebuildError> {
        let handler = &*subscription.runner.handler;
        let (name, revision) = (handler.name(), i64::from(handler.revision()));
        let home = subscription.runner.store.clone();
        let mut lock = PgConnection::connect_with(&home.pool().connect_options()).await?;
        let query = "select pg_try_advisory_lock(epoch_gate('rebuild of ' || $1, 0))";
        if !sqlx::query_scalar::<_, bool>(query).bind(name).fetch_one(&mut lock).await? {
            return Err(RebuildError::Busy { subscription: name.to_owned() });
        }
        let query = sqlx::query_as(generations::SERVING).bind(name).bind(revision);
        let serving: ServingGeneration = query.fetch_one(&mut lock).await?;
        delete_retired_rows(&home, name).await?;
        let schema = current_schema(&mut lock).await?;
        let mut earlier = generation_row::find(&mut lock, name).await?;
        if let Some(row) = &earlier
            && (row.revision != revision || !has_same_shape(&mut lock, &row.schema, handler.tables()).await?)
        {
            tracing::info!(
                subscription = name,
                generation = row.number,
                "discarding an earlier rebuild of another revision or other tables"
            );
            generation_row::discard(&mut lock, name, row).await?;
            delete_retired_rows(&home, name).await?;
            earlier = None;
        }
        let resumed = earlier.is_some();
        let row = match earlier {
            Some(row) => row,
            None => generation_row::create(&mut lock, name, revision, &schema, handler.tables()).await?,
        };
        let checked = WriteCheckedHandler::new(Arc::clone(&subscription.runner.handler));
        Ok(Self {
            subscription: generation_subscription(subscription, &schema, &row, Arc::clone(&checked)),
            home,
            number: unsigned(row.number)?,
            schema: row.schema,
            position: Position::new(unsigned(row.position)?),
            resumed,
            name,
            serving_number: serving.number,
            serving_key: serving.key,
            tables: handler.tables(),
            aggregates: handler.aggregates(),
            handler: checked,
            lock,
        })
    }

    /// Releases the lock.
    pub(super) async fn end(mut self) {
        self.subscription.runner.store.pool().close().await;
        // Explicitly, since a server may notice a closed connection only after the next rebuild has started. Both calls
        // may fail when the server is gone; the lock is released then too.
        let _ = sqlx::query("select pg_advisory_unlock_all()").execute(&mut self.lock).await;
        let _ = self.lock.close().await;
    }

    /// Returns the store with the generation's own connections. During a swap, all connections of the process may wait
    /// for it.
    pub(super) fn store(&self) -> &PgStore {
        &self.subscription.runner.store
    }

    /// Returns the key of its cursors.
    pub(super) fn key(&self) -> String {
        generations::key(self.name, bigint(self.number))
    }

    /// Records that the log is read up to `position`.
    pub(super) async fn record_position(&self, position: Position) -> Result<(), RebuildError> {
        let query = "update generations set position = $3 where subscription = $1 and generation = $2";
        let query = sqlx::query(query).bind(self.name).bind(bigint(self.number));
        query.bind(bigint(position.get())).execute(self.store().pool()).await?;
        Ok(())
    }

    /// Returns how many events it has applied.
    pub(super) async fn applied(&self) -> Result<u64, RebuildError> {
        self.applied_by(&self.key()).await
    }

    /// Returns how many events the serving generation has applied.
    pub(super) async fn applied_by_serving(&self) -> Result<u64, RebuildError> {
        self.applied_by(&self.serving_key).await
    }

    async fn applied_by(&self, key: &str) -> Result<u64, RebuildError> {
        let query = sqlx::query_scalar(include_str!("sql/count_applied.sql")).bind(key).bind(self.aggregates);
        let applied: i64 = query.fetch_one(self.home.pool()).await?;
        Ok(unsigned(applied)?)
    }

    /// Returns whether the handler listens to aggregates that have no events in this service's log.
    pub(super) async fn listens_to_other_services(&self) -> Result<bool, RebuildError> {
        let query = sqlx::query_scalar(include_str!("sql/listens_to_other_services.sql"));
        let others: Option<bool> = query.bind(self.aggregates).fetch_one(self.home.pool()).await?;
        Ok(others.unwrap_or(false))
    }

    /// Returns an aggregate of which the serving generation has applied more, if there is one.
    pub(super) async fn missing(&self) -> Result<Option<MissingEvents>, RebuildError> {
        let mut connection = self.store().pool().acquire().await?;
        self.missing_in(&mut connection).await
    }

    /// As [`missing`](Self::missing), in the snapshot of `connection`.
    pub(super) async fn missing_in(
        &self,
        connection: &mut PgConnection,
    ) -> Result<Option<MissingEvents>, RebuildError> {
        #[derive(FromRow)]
        struct Row {
            aggregate: String,
            aggregate_id: Uuid,
            reached: i64,
            wanted: i64,
        }
        let query = sqlx::query_as("select aggregate, aggregate_id, reached, wanted from epoch_behind($1, $2, $3)");
        let query = query.bind(&self.serving_key).bind(self.key()).bind(self.aggregates);
        let Some(row): Option<Row> = query.fetch_optional(connection).await? else { return Ok(None) };
        let stream = StreamKey { aggregate: row.aggregate.into(), id: row.aggregate_id };
        Ok(Some(MissingEvents { stream, reached: unsigned(row.reached)?, wanted: unsigned(row.wanted)? }))
    }

    /// Fails when the handler has written undeclared tables; it would do so again.
    pub(super) fn check_declared(&self) -> Result<(), RebuildError> {
        let Some(tables) = self.handler.undeclared() else { return Ok(()) };
        Err(RebuildError::Undeclared { subscription: self.name.to_owned(), tables: tables.to_owned() })
    }

    /// Fails when an aggregate that lacks events is parked; waiting does not help then.
    pub(super) async fn check_parked(&self) -> Result<(), RebuildError> {
        #[derive(FromRow)]
        struct Row {
            parked: i64,
            first_aggregate: Option<String>,
            first_aggregate_id: Option<Uuid>,
        }
        let query = sqlx::query_as(include_str!("sql/parked_with_missing_events.sql"));
        let row: Row = query.bind(&self.serving_key).bind(self.key()).fetch_one(self.home.pool()).await?;
        match (row.first_aggregate, row.first_aggregate_id) {
            (Some(aggregate), Some(id)) => Err(RebuildError::Parked {
                generation: self.key(),
                aggregates: unsigned(row.parked)?,
                first: StreamKey { aggregate: aggregate.into(), id },
            }),
            _ => Ok(()),
        }
    }
}

/// An aggregate of which the serving generation has applied more.
pub(super) struct MissingEvents {
    stream: StreamKey,
    reached: u64,
    wanted: u64,
}

impl MissingEvents {
    pub(super) fn stalled(self) -> RebuildError {
        RebuildError::Stalled { stream: self.stream, reached: self.reached, wanted: self.wanted }
    }
}

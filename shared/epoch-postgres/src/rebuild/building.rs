//! A generation from its first table to the end of one attempt.
//!
//! The problem: an attempt may die anywhere, and two may run at once. The invariant: a generation's row, schema and tables
//! appear in one transaction; one process at a time builds, as long as it holds a lock that dies with its connection; what an
//! earlier attempt left is used if it fits this handler and these tables, else it is thrown away first.

use std::sync::Arc;

use epoch::{Position, Timestamp, envelope::StreamKey, local::LocalBus};
use sqlx::{Connection, PgConnection, Row, postgres::PgPoolOptions};
use uuid::Uuid;

use crate::{
    database::rows::{count, number},
    delivery::declared_tables::Watched,
    delivery::generations,
    delivery::generations::Generation,
    delivery::subscription::PgSubscription,
    rebuild::RebuildError,
    store::pg_store::PgStore,
};

/// Connections for the new generation: one for the log, some for the bus.
const CONNECTIONS: u32 = 6;
/// Rows deleted at once of what nobody needs any more.
const PAGE: i64 = 5_000;

/// The row of a generation in building.
struct Found {
    number: i64,
    revision: i64,
    schema: String,
    position: i64,
}

const FIND: &str = "select generation, revision, schema, position from generations \
     where subscription = $1 and state = 'building'";

async fn find(connection: &mut PgConnection, subscription: &str) -> Result<Option<Found>, sqlx::Error> {
    let Some(row) = sqlx::query(FIND).bind(subscription).fetch_optional(connection).await? else { return Ok(None) };
    let (number, revision) = (row.try_get(0)?, row.try_get(1)?);
    Ok(Some(Found { number, revision, schema: row.try_get(2)?, position: row.try_get(3)? }))
}

/// The generation in building, if there is one.
pub(super) async fn open(subscription: &PgSubscription) -> Result<Option<PgSubscription>, sqlx::Error> {
    let mut connection = subscription.store.pool().acquire().await?;
    let Some(found) = find(&mut connection, subscription.handler.name()).await? else { return Ok(None) };
    let home = current_schema(&mut connection).await?;
    let watched = Watched::new(Arc::clone(&subscription.handler));
    Ok(Some(of_generation(subscription, &home, &found, watched)))
}

fn of_generation(subscription: &PgSubscription, home: &str, found: &Found, watched: Arc<Watched>) -> PgSubscription {
    // Its tables are found first; everything else, Epoch's tables too, where it always is.
    let path = search_path(&found.schema, home);
    let options = subscription.store.pool().connect_options().as_ref().clone().options([("search_path", path)]);
    let pool = PgPoolOptions::new().max_connections(CONNECTIONS).connect_lazy_with(options);
    // Nobody appends by this store but handlers, in their own transactions.
    let (store, _) = PgStore::new(pool, LocalBus::new());
    let name = subscription.handler.name();
    let key = generations::key(name, found.number).into();
    let limit_ms = generations::limit_ms(subscription.deadline);
    let generation = Generation { subscription: name.into(), number: found.number, key, limit_ms };
    let mut subscription = subscription.clone().of_generation(store, generation);
    subscription.handler = watched;
    subscription
}

fn search_path(schema: &str, home: &str) -> String {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    format!("{},{}", quoted(schema), quoted(home))
}

async fn current_schema(connection: &mut PgConnection) -> Result<String, sqlx::Error> {
    sqlx::query_scalar("select current_schema()::text").fetch_one(connection).await
}

/// A generation that this process builds.
pub(super) struct Building {
    pub(super) subscription: PgSubscription,
    pub(super) home: PgStore,
    pub(super) number: u64,
    pub(super) schema: String,
    /// How far earlier attempts read the log.
    pub(super) position: Position,
    pub(super) resumed: bool,
    /// The subscription.
    pub(super) name: &'static str,
    /// The generation in use.
    pub(super) old_number: i64,
    /// What its cursors are kept under.
    old_key: String,
    pub(super) tables: &'static [&'static str],
    aggregates: &'static [&'static str],
    watched: Arc<Watched>,
    /// Holds the lock that lets one process build.
    lock: PgConnection,
}

impl Building {
    pub(super) async fn begin(subscription: &PgSubscription) -> Result<Self, RebuildError> {
        let handler = &*subscription.handler;
        let (name, revision) = (handler.name(), i64::from(handler.revision()));
        let home = subscription.store.clone();
        let mut lock = PgConnection::connect_with(&home.pool().connect_options()).await?;
        let query = "select pg_try_advisory_lock(epoch_gate('rebuild of ' || $1, 0))";
        if !sqlx::query_scalar::<_, bool>(query).bind(name).fetch_one(&mut lock).await? {
            return Err(RebuildError::Busy { subscription: name.to_owned() });
        }
        let query = "select generation, key from epoch_serving($1, $2)";
        let row = sqlx::query(query).bind(name).bind(revision).fetch_one(&mut lock).await?;
        let (old_number, old_key) = (row.try_get(0)?, row.try_get(1)?);
        tidy(&home, name).await?;
        let schema = current_schema(&mut lock).await?;
        let mut found = find(&mut lock, name).await?;
        if let Some(earlier) = &found
            && (earlier.revision != revision || !same_shape(&mut lock, &earlier.schema, handler.tables()).await?)
        {
            tracing::info!(subscription = name, generation = earlier.number, "an earlier rebuild doesn't fit any more");
            discard(&mut lock, name, earlier).await?;
            tidy(&home, name).await?;
            found = None;
        }
        let resumed = found.is_some();
        let found = match found {
            Some(found) => found,
            None => create(&mut lock, name, revision, &schema, handler.tables()).await?,
        };
        let watched = Watched::new(Arc::clone(&subscription.handler));
        Ok(Self {
            subscription: of_generation(subscription, &schema, &found, Arc::clone(&watched)),
            home,
            number: count(found.number)?,
            schema: found.schema,
            position: Position::new(count(found.position)?),
            resumed,
            name,
            old_number,
            old_key,
            tables: handler.tables(),
            aggregates: handler.aggregates(),
            watched,
            lock,
        })
    }

    /// Lets others build.
    pub(super) async fn end(mut self) {
        self.subscription.store.pool().close().await;
        // A server notices a farewell when it gets to it, and the next rebuild may come sooner. Both may fail when the server has
        // gone; then it has let go by itself.
        let _ = sqlx::query("select pg_advisory_unlock_all()").execute(&mut self.lock).await;
        let _ = self.lock.close().await;
    }

    /// Reads by connections of its own: while a swap decides, those of the process may all wait for it.
    pub(super) fn store(&self) -> &PgStore {
        &self.subscription.store
    }

    /// What its cursors are kept under.
    pub(super) fn key(&self) -> String {
        generations::key(self.name, number(self.number))
    }

    /// The log holds nothing more for it up to `position`.
    pub(super) async fn note_position(&self, position: Position) -> Result<(), RebuildError> {
        let query = "update generations set position = $3 where subscription = $1 and generation = $2";
        let query = sqlx::query(query).bind(self.name).bind(number(self.number));
        query.bind(number(position.get())).execute(self.store().pool()).await?;
        Ok(())
    }

    /// Events it has applied.
    pub(super) async fn applied(&self) -> Result<u64, RebuildError> {
        self.versions(&self.key()).await
    }

    /// Events that the generation in use has applied.
    pub(super) async fn wanted(&self) -> Result<u64, RebuildError> {
        self.versions(&self.old_key).await
    }

    async fn versions(&self, key: &str) -> Result<u64, RebuildError> {
        let query = "select coalesce(sum(version), 0)::bigint from cursors \
             where subscription = $1 and aggregate = any($2)";
        let sum: i64 = sqlx::query_scalar(query).bind(key).bind(self.aggregates).fetch_one(self.home.pool()).await?;
        Ok(count(sum)?)
    }

    /// Whether it listens to aggregates of which this service has no events.
    pub(super) async fn listens_to_others(&self) -> Result<bool, RebuildError> {
        let query = "select bool_or(not exists (select from events e where e.aggregate = a.name)) from unnest($1::text[]) a (name)";
        let others: Option<bool> = sqlx::query_scalar(query).bind(self.aggregates).fetch_one(self.home.pool()).await?;
        Ok(others.unwrap_or(false))
    }

    /// An aggregate of which the generation in use has more.
    pub(super) async fn behind(&self) -> Result<Option<Behind>, RebuildError> {
        let mut connection = self.store().pool().acquire().await?;
        self.behind_in(&mut connection).await
    }

    pub(super) async fn behind_in(&self, connection: &mut PgConnection) -> Result<Option<Behind>, RebuildError> {
        let query = "select aggregate, aggregate_id, reached, wanted from epoch_behind($1, $2, $3)";
        let query = sqlx::query(query).bind(&self.old_key).bind(self.key()).bind(self.aggregates);
        let Some(row) = query.fetch_optional(connection).await? else { return Ok(None) };
        let (aggregate, id): (String, Uuid) = (row.try_get(0)?, row.try_get(1)?);
        let (reached, wanted): (i64, i64) = (row.try_get(2)?, row.try_get(3)?);
        let stream = StreamKey { aggregate: aggregate.into(), id };
        Ok(Some(Behind { stream, reached: count(reached)?, wanted: count(wanted)? }))
    }

    /// An error when the handler tried to write what it doesn't name: it will do so again.
    pub(super) fn check_declared(&self) -> Result<(), RebuildError> {
        let Some(tables) = self.watched.undeclared() else { return Ok(()) };
        Err(RebuildError::Undeclared { subscription: self.name.to_owned(), tables: tables.to_owned() })
    }

    /// An error when all that it is behind with is parked: then waiting doesn't help.
    pub(super) async fn check_parked(&self) -> Result<(), RebuildError> {
        let query = "select count(*), (array_agg(b.aggregate))[1], (array_agg(b.aggregate_id))[1] from cursors b \
             join cursors s using (aggregate_id, aggregate) \
             where b.subscription = $2 and b.parked = 'failed' and s.subscription = $1 and s.version > b.version";
        let row = sqlx::query(query).bind(&self.old_key).bind(self.key()).fetch_one(self.home.pool()).await?;
        let parked: i64 = row.try_get(0)?;
        let (aggregate, id): (Option<String>, Option<Uuid>) = (row.try_get(1)?, row.try_get(2)?);
        match (aggregate, id) {
            (Some(aggregate), Some(id)) => Err(RebuildError::Parked {
                generation: self.key(),
                aggregates: count(parked)?,
                first: StreamKey { aggregate: aggregate.into(), id },
            }),
            _ => Ok(()),
        }
    }
}

/// An aggregate of which the generation in use has more.
pub(super) struct Behind {
    stream: StreamKey,
    reached: u64,
    wanted: u64,
}

impl Behind {
    pub(super) fn stalled(self) -> RebuildError {
        RebuildError::Stalled { stream: self.stream, reached: self.reached, wanted: self.wanted }
    }
}

/// Whether tables that are being built look like those in use.
pub(super) async fn same_shape(
    connection: &mut PgConnection,
    schema: &str,
    tables: &[&str],
) -> Result<bool, sqlx::Error> {
    let home = current_schema(connection).await?;
    // A table that isn't there would be found where it always is.
    let query = "select epoch_table_shape($1, $3) = epoch_table_shape($2, $3) and cardinality($3::text[]) = ( \
         select count(*) from pg_class c join pg_namespace n on n.oid = c.relnamespace \
         where n.nspname = $4 and c.relkind = 'r')";
    let query = sqlx::query_scalar(query).bind(search_path(schema, &home)).bind(format!("\"{home}\"")).bind(tables);
    query.bind(schema).fetch_one(connection).await
}

async fn create(
    connection: &mut PgConnection,
    name: &str,
    revision: i64,
    home: &str,
    tables: &[&str],
) -> Result<Found, RebuildError> {
    let mut tx = connection.begin().await?;
    let query = "select max(generation) + 1 from generations where subscription = $1";
    let number: i64 = sqlx::query_scalar(query).bind(name).fetch_one(&mut *tx).await?;
    let schema: String = format!("{home}_g{number}_{name}").chars().take(63).collect();
    let cloned = sqlx::query("select epoch_clone_tables($1, $2)").bind(&schema).bind(tables).execute(&mut *tx).await;
    cloned.map_err(|error| tables_error(name, error))?;
    let query = "insert into generations (subscription, generation, revision, state, key, schema, began_at) \
         values ($1, $2, $3, 'building', $4, $5, $6)";
    sqlx::query(query)
        .bind(name)
        .bind(number)
        .bind(revision)
        .bind(generations::key(name, number))
        .bind(&schema)
        .bind(Timestamp::now().as_millis())
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(Found { number, revision, schema, position: 0 })
}

pub(super) fn tables_error(name: &str, error: sqlx::Error) -> RebuildError {
    /// What `epoch_clone_tables` refuses with.
    const REFUSED: &str = "EP002";
    match error.as_database_error() {
        Some(refused) if refused.code().is_some_and(|code| code == REFUSED) => {
            RebuildError::Tables { subscription: name.to_owned(), detail: refused.message().to_owned() }
        }
        _ => error.into(),
    }
}

async fn discard(connection: &mut PgConnection, name: &str, found: &Found) -> Result<(), RebuildError> {
    let mut tx = connection.begin().await?;
    let retire = "update generations set state = 'retired', ended_at = $3 where subscription = $1 and generation = $2";
    let retire = sqlx::query(retire).bind(name).bind(found.number).bind(Timestamp::now().as_millis());
    retire.execute(&mut *tx).await?;
    let query = "select format('drop schema %I cascade', $1)";
    let drop: String = sqlx::query_scalar(query).bind(&found.schema).fetch_one(&mut *tx).await?;
    sqlx::raw_sql(sqlx::AssertSqlSafe(drop)).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(())
}

/// Deletes what retired generations left, a page at a time. What was skipped in them stays.
pub(super) async fn tidy(store: &PgStore, name: &str) -> Result<(), RebuildError> {
    let query = "select key from generations where subscription = $1 and state = 'retired'";
    let keys: Vec<String> = sqlx::query_scalar(query).bind(name).fetch_all(store.pool()).await?;
    for key in keys {
        for delete in [
            "delete from cursors where ctid = any(array(select ctid from cursors where subscription = $1 limit $2))",
            "delete from dead_letters where ctid = any(array(select ctid from dead_letters \
             where subscription = $1 and skipped_at is null limit $2))",
        ] {
            loop {
                let deleted = sqlx::query(delete).bind(&key).bind(PAGE).execute(store.pool()).await?;
                if deleted.rows_affected() == 0 {
                    break;
                }
            }
        }
    }
    Ok(())
}

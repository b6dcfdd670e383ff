//! States committed with their events, and failures during such a commit.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use async_trait::async_trait;
use epoch::{
    Aggregate, CommandContext, ExecuteError, FastPath, Id, Repository, Version, VersionedState,
    snapshot::{SnapshotPolicy, Snapshots},
    state::StateStore,
    store::{Appender, StoreError},
    testkit::{Tally, TallyCommand, state_store_conformance},
};
use epoch_postgres::{PgBlobStates, PgSnapshots, PgStore, PgTx, TxError, store_error, testkit::TestDatabase};
use futures::FutureExt;
use sqlx::{PgConnection, PgPool, Row, postgres::PgPoolOptions};
use uuid::Uuid;

/// A tally in two tables: a row for the total, and a row for each count since the last tombstone.
const TABLES: &str = "create table tallies (id uuid primary key, version bigint not null, total bigint not null); \
     create table counts (id uuid not null references tallies on delete cascade, number bigint, primary key (id, number))";

/// How the next state writes fail.
const NOTHING: u8 = 0;
const REFUSED: u8 = 1;
const KILLED: u8 = 2;

/// Writes states without checking versions; Epoch ensures their order.
#[derive(Default)]
struct TwoTables {
    fault: AtomicU8,
}

#[async_trait]
impl StateStore<Tally, PgConnection> for TwoTables {
    async fn get_by_id(
        &self,
        executor: &mut PgConnection,
        id: Uuid,
    ) -> Result<Option<VersionedState<Tally>>, StoreError> {
        let query =
            "select version, total, (select count(*) from counts c where c.id = t.id) from tallies t where id = $1";
        let row = sqlx::query(query).bind(id).fetch_optional(executor).await.map_err(|error| store_error(&error))?;
        let number = |row: &sqlx::postgres::PgRow, column: usize| row.get::<i64, _>(column);
        Ok(row.map(|row| VersionedState {
            state: Arc::new(Tally { total: number(&row, 1), counts: number(&row, 2).unsigned_abs() }),
            version: Version::new(number(&row, 0).unsigned_abs()),
        }))
    }

    async fn persist(
        &self,
        executor: &mut PgConnection,
        id: Uuid,
        state: &VersionedState<Tally>,
    ) -> Result<(), StoreError> {
        let write = async {
            let version = epoch_postgres::version_number(state.version);
            sqlx::query("delete from tallies where id = $1").bind(id).execute(&mut *executor).await?;
            sqlx::query("insert into tallies values ($1, $2, $3)")
                .bind(id)
                .bind(version)
                .bind(state.state.total)
                .execute(&mut *executor)
                .await?;
            sqlx::query("insert into counts select $1, generate_series(1, $2)")
                .bind(id)
                .bind(i64::try_from(state.state.counts).unwrap())
                .execute(&mut *executor)
                .await?;
            match self.fault.load(Ordering::SeqCst) {
                NOTHING => {}
                REFUSED => {
                    sqlx::query("insert into counts values ($1, 1)").bind(id).execute(&mut *executor).await?;
                }
                _ => {
                    sqlx::query("select pg_terminate_backend(pg_backend_pid())").execute(&mut *executor).await?;
                }
            }
            Ok(())
        };
        write.await.map_err(|error: sqlx::Error| store_error(&error))
    }

    async fn delete(&self, executor: &mut PgConnection, id: Uuid) -> Result<(), StoreError> {
        let deleted = sqlx::query("delete from tallies where id = $1").bind(id).execute(executor).await;
        deleted.map(drop).map_err(|error| store_error(&error))
    }
}

struct Office {
    database: TestDatabase,
    store: PgStore,
    states: Arc<TwoTables>,
    tallies: Repository<Tally, PgStore>,
}

impl Office {
    async fn open() -> Self {
        let database = TestDatabase::create().await;
        let pool = database.epoch().await;
        sqlx::raw_sql(TABLES).execute(&pool).await.unwrap();
        let store = store_on(pool);
        let states = Arc::new(TwoTables::default());
        let tallies = Repository::new(store.clone()).with_states(states.clone());
        Self { database, store, states, tallies }
    }

    /// Returns the state row (version and total) and the number of events.
    async fn stored(&self, id: Uuid) -> (Option<(u64, i64)>, u64) {
        let row = self.store.read_state(&*self.states, id).await.unwrap();
        let events = Repository::<Tally, _>::new(self.store.clone()).load(id).await.unwrap().version.get();
        (row.map(|row| (row.version.get(), row.state.total)), events)
    }
}

fn store_on(pool: PgPool) -> PgStore {
    let (store, appender) = PgStore::new(pool, FastPath::new());
    tokio::spawn(appender.run());
    store
}

#[tokio::test(flavor = "multi_thread")]
async fn state_stores_pass_conformance() {
    let office = Office::open().await;
    state_store_conformance(&office.store, office.states.clone()).await.unwrap();
    state_store_conformance(&office.store, Arc::new(PgBlobStates::new())).await.unwrap();
    office.database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pending_tombstone_resets_state_for_next_command() {
    let database = TestDatabase::create().await;
    let store = store_on(database.epoch().await);
    let tallies = Repository::<Tally, _>::new(store.clone());
    let id = Id::<Tally>::generate();
    let context = CommandContext::new();
    tallies.create(id, &TallyCommand::Add(1), &context).await.unwrap();
    // Polled in this order, each before the previous command is committed.
    let (added, thrown_away, again) = tokio::join!(
        biased;
        tallies.execute(id, &TallyCommand::Add(5), &context),
        tallies.execute(id, &TallyCommand::ThrowAway, &context),
        tallies.execute(id, &TallyCommand::Add(2), &context),
    );
    let versions = [added, thrown_away, again].map(|executed| executed.unwrap().version.get());
    assert_eq!(versions, [2, 3, 4], "committed in the order of the decisions");
    let folded = Repository::<Tally, _>::new(store).load(id).await.unwrap();
    for loaded in [tallies.cached(id.uuid()), folded] {
        assert_eq!((loaded.version.get(), loaded.state.total, loaded.state.counts), (4, 2, 1));
    }
    database.drop().await;
}

/// In another framework, a crash between events and state row locked an aggregate permanently.
#[tokio::test(flavor = "multi_thread")]
async fn failed_state_write_rolls_back_events_and_locks() {
    let office = Office::open().await;
    let id = Uuid::now_v7();
    let add = |by| TallyCommand::Add(by);
    for fault in [REFUSED, KILLED] {
        let before = office.stored(id).await;
        office.states.fault.store(fault, Ordering::SeqCst);
        for _ in 0..3 {
            let context = CommandContext::new().repeatable(Uuid::now_v7(), *b"add");
            let broken = office.tallies.execute(id, &add(100), &context).await;
            assert!(matches!(broken, Err(ExecuteError::Store(_))), "{broken:?}");
            assert_eq!(
                office.store.find_command(context.command_id, b"add").await.unwrap(),
                None,
                "the command record is rolled back"
            );
            let tallies = office.tallies.clone();
            let broken: Result<(), TransactionError> = office
                .store
                .transaction(move |tx: &mut PgTx| {
                    let tallies = tallies.clone();
                    async move {
                        tx.execute(&tallies, id, &TallyCommand::Add(100), &CommandContext::new()).await?;
                        Ok(())
                    }
                    .boxed()
                })
                .await;
            assert!(matches!(broken, Err(TransactionError::Tx(TxError::Store(_)))), "{broken:?}");
        }
        assert_eq!(office.stored(id).await, before, "events and state are rolled back");
        office.states.fault.store(NOTHING, Ordering::SeqCst);
        office.tallies.execute(id, &add(1), &CommandContext::new()).await.unwrap();
    }
    assert_eq!(office.stored(id).await, (Some((2, 2)), 2), "the aggregate accepts further commands");
    office.database.drop().await;
}

#[derive(Debug, thiserror::Error)]
enum TransactionError {
    #[error(transparent)]
    Execute(#[from] ExecuteError<epoch::testkit::EmptyTally>),
    #[error(transparent)]
    Tx(#[from] TxError),
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn transaction_commits_aggregates_states_and_rows() {
    let office = Office::open().await;
    sqlx::raw_sql("create table notes (id uuid)").execute(office.store.pool()).await.unwrap();
    let mut ids: Vec<Id<Tally>> = (0..3).map(|_| Id::generate()).collect();
    let rounds = (0..12).map(|round| {
        // Each in another order: locking rows in the order of use would deadlock.
        ids.rotate_left(1);
        let (mut ids, tallies, store) = (ids.clone(), office.tallies.clone(), office.store.clone());
        if round % 2 == 0 {
            ids.reverse();
        }
        tokio::spawn(async move {
            let result: Result<(), TransactionError> = store
                .transaction(|tx: &mut PgTx| {
                    let (ids, tallies) = (ids.clone(), tallies.clone());
                    async move {
                        for id in ids {
                            tx.execute(&tallies, id, &TallyCommand::Add(1), &CommandContext::new()).await?;
                            tx.execute(&tallies, id, &TallyCommand::Add(0), &CommandContext::new()).await?;
                            tx.execute(&tallies, id, &TallyCommand::Add(1), &CommandContext::new()).await?;
                            let row = sqlx::query("insert into notes values ($1)").bind(id.uuid());
                            row.execute(tx.connection()).await?;
                        }
                        Ok(())
                    }
                    .boxed()
                })
                .await;
            result.unwrap();
        })
    });
    for round in futures::future::join_all(rounds).await {
        round.unwrap();
    }
    for id in &ids {
        assert_eq!(office.stored(id.uuid()).await, (Some((24, 24)), 24));
    }
    let notes: i64 = sqlx::query_scalar("select count(*) from notes").fetch_one(office.store.pool()).await.unwrap();
    assert_eq!(notes, 36);
    // Deleted and created again within one transaction, which is rolled back.
    let mut tx = office.store.begin().await.unwrap();
    let id = ids[0];
    tx.execute(&office.tallies, id, &TallyCommand::ThrowAway, &CommandContext::new()).await.unwrap();
    let again = tx.execute(&office.tallies, id, &TallyCommand::ThrowAway, &CommandContext::new()).await;
    assert!(matches!(again, Err(ExecuteError::Rejected(_))), "decided on the earlier commands of the transaction");
    tx.execute(&office.tallies, id, &TallyCommand::Add(7), &CommandContext::new()).await.unwrap();
    tx.rollback().await.unwrap();
    assert_eq!(office.stored(id.uuid()).await, (Some((24, 24)), 24));
    let mut tx = office.store.begin().await.unwrap();
    tx.execute(&office.tallies, id, &TallyCommand::Add(7), &CommandContext::new()).await.unwrap();
    tx.execute(&office.tallies, id, &TallyCommand::ThrowAway, &CommandContext::new()).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(office.stored(id.uuid()).await, (None, 26));
    office.database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn adopted_transaction_commits_events_and_states() {
    let office = Office::open().await;
    sqlx::raw_sql("create table notes (id uuid)").execute(office.store.pool()).await.unwrap();
    let id = Id::<Tally>::generate();
    for commit in [false, true] {
        let mut transaction = office.store.pool().begin().await.unwrap();
        sqlx::query("insert into notes values ($1)").bind(id.uuid()).execute(&mut *transaction).await.unwrap();
        let mut tx = office.store.adopt(transaction);
        tx.execute(&office.tallies, id, &TallyCommand::Add(3), &CommandContext::new()).await.unwrap();
        if commit {
            tx.commit().await.unwrap();
        } else {
            tx.rollback().await.unwrap();
        }
        let notes: i64 = sqlx::query_scalar("select count(*) from notes").fetch_one(office.store.pool()).await.unwrap();
        let expected = if commit { (Some((1, 3)), 1) } else { (None, 0) };
        assert_eq!((notes == 1, office.stored(id.uuid()).await), (commit, expected));
    }
    office.database.drop().await;
}

/// In another framework, writers that exhausted the connection pool blocked permanently.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn mixed_writers_finish_with_two_connections() {
    let database = TestDatabase::create().await;
    let setup = database.epoch().await;
    sqlx::raw_sql(TABLES).execute(&setup).await.unwrap();
    let options = PgPoolOptions::new().max_connections(2).acquire_timeout(std::time::Duration::from_secs(60));
    let pool = epoch_postgres::connect(options, database.options(), "test").await.unwrap();
    let store = store_on(pool.clone());
    let (snapshots, writer) = Snapshots::new(Arc::new(PgSnapshots::new(pool)));
    let writing = tokio::spawn(writer.run());
    // Without a cache, so that each command also reads.
    let plain = Repository::<Tally, _>::new(store.clone())
        .with_cache(0)
        .with_snapshots(&snapshots, SnapshotPolicy::EveryCommit);
    let keeping = Repository::<Tally, _>::new(store.clone()).with_states(Arc::new(TwoTables::default())).with_cache(0);
    let clients = (0..64_u128).map(|client| {
        let (store, plain, keeping) = (store.clone(), plain.clone(), keeping.clone());
        tokio::spawn(async move {
            // Some clients share an aggregate.
            let id = Uuid::from_u128(client / 2 * 4 + client % 4);
            for _ in 0..4 {
                match client % 4 {
                    0 | 1 => {
                        plain.execute(id, &TallyCommand::Add(1), &CommandContext::new()).await.unwrap();
                    }
                    2 => {
                        keeping.execute(id, &TallyCommand::Add(1), &CommandContext::new()).await.unwrap();
                    }
                    _ => {
                        let keeping = keeping.clone();
                        let result: Result<(), TransactionError> = store
                            .transaction(move |tx: &mut PgTx| {
                                let keeping = keeping.clone();
                                async move {
                                    tx.execute(&keeping, id, &TallyCommand::Add(1), &CommandContext::new()).await?;
                                    Ok(())
                                }
                                .boxed()
                            })
                            .await;
                        result.unwrap();
                    }
                }
            }
        })
    });
    let all = futures::future::join_all(clients);
    let all = tokio::time::timeout(std::time::Duration::from_secs(60), all).await.expect("all writers finish");
    assert!(all.iter().all(Result::is_ok));
    let events: i64 = sqlx::query_scalar("select count(*) from events").fetch_one(&setup).await.unwrap();
    assert_eq!(events, 256);
    drop((plain, snapshots));
    writing.await.unwrap();
    let stored: i64 = sqlx::query_scalar("select count(*) from snapshots").fetch_one(&setup).await.unwrap();
    assert!(stored > 0, "snapshots were written");
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn blob_of_another_schema_is_recomputed() {
    let database = TestDatabase::create().await;
    let store = store_on(database.epoch().await);
    let open = || Repository::<Tally, _>::new(store.clone()).with_cache(0).with_states(Arc::new(PgBlobStates::new()));
    let id = Id::<Tally>::generate();
    for _ in 0..3 {
        open().execute(id, &TallyCommand::Add(2), &CommandContext::new()).await.unwrap();
    }
    for damage in ["schema = 2, state = '{\"total\":99,\"counts\":3}'", "state = 'x'", "schema = -1"] {
        let update = sqlx::AssertSqlSafe(format!("update states set {damage}"));
        sqlx::query(update).execute(store.pool()).await.unwrap();
        assert_eq!(open().load(id).await.unwrap().state.total, 6, "{damage}");
    }
    open().execute(id, &TallyCommand::Add(2), &CommandContext::new()).await.unwrap();
    let (schema, version): (i64, i64) =
        sqlx::query_as("select schema, version from states").fetch_one(store.pool()).await.unwrap();
    assert_eq!((schema, version), (i64::from(Tally::STATE_SCHEMA), 4), "the state is written with the new schema");
    database.drop().await;
}

//! Declared tables: rebuilds and checked handlers reject writes to undeclared ones.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use epoch::{
    Batch, CommandContext, Version,
    bus::Bus,
    gate::DeliverySource,
    handler::{EventHandler, Subscription},
    memory::{MemoryBus, MemoryStore},
    store::{Append, AppendOutcome, Appender, NewEvent},
};
use epoch_postgres::{
    HandlerError, PgHandler, PgSubscription, PgTx, Rebuild, RebuildError, RebuildSummary, SharedTable,
    WriteCheckedHandler, check_tables,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::account::{Bank, Deposited};

const SETUP: &str = "create table tally (n bigint not null); insert into tally values (0)";
const FILL: &str = "insert into balances select gen_random_uuid(), 1";

/// A handler that runs the same statements for each batch.
#[derive(Clone, Copy)]
struct Scribe {
    name: &'static str,
    tables: &'static [&'static str],
    also_writes: &'static [&'static str],
    statements: &'static str,
}

const PLAIN: Scribe = Scribe { name: "scribe", tables: &["balances"], also_writes: &[], statements: FILL };

#[async_trait]
impl EventHandler<PgTx> for Scribe {
    type Error = HandlerError;

    fn name(&self) -> &'static str {
        self.name
    }

    fn aggregates(&self) -> &'static [&'static str] {
        &["account"]
    }

    fn tables(&self) -> &'static [&'static str] {
        self.tables
    }

    fn also_writes(&self) -> &'static [&'static str] {
        self.also_writes
    }

    async fn handle(&self, tx: &mut PgTx, _: &Batch) -> Result<(), HandlerError> {
        sqlx::raw_sql(self.statements).execute(tx.connection()).await?;
        Ok(())
    }
}

async fn open() -> Bank {
    let bank = Bank::open().await;
    sqlx::raw_sql(SETUP).execute(bank.store.pool()).await.unwrap();
    bank.deposit(Uuid::now_v7(), 5).await;
    bank
}

fn gate(bank: &Bank, handler: impl PgHandler) -> PgSubscription {
    PgSubscription::new(Arc::new(handler), bank.store.clone(), bank.progress.clone())
}

async fn rebuild(subscription: PgSubscription, bus: Option<Arc<dyn Bus>>) -> Result<RebuildSummary, RebuildError> {
    Rebuild::new(subscription, bus).run(&CancellationToken::new(), |_| {}).await
}

async fn row_counts(bank: &Bank) -> (i64, i64) {
    let query = "select (select n from tally), (select count(*) from balances)";
    sqlx::query_as(query).fetch_one(bank.store.pool()).await.unwrap()
}

/// Returns the undeclared tables that the rebuild failed on.
fn undeclared(result: Result<RebuildSummary, RebuildError>) -> String {
    match result {
        Err(RebuildError::Undeclared { subscription, tables }) if subscription == "scribe" => tables,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rebuild_fails_on_undeclared_writes() {
    let cases = [
        ("", "update tally set n = n + 1", "test.tally"),
        // Writes of triggers count as writes of the handler.
        (
            "create function count_up() returns trigger language plpgsql as 'begin update tally set n = n + 1; return new; end'; \
             create trigger up after insert on balances for each row execute function count_up()",
            "",
            "test.tally",
        ),
        // The handler's own table, but the serving one.
        ("", "insert into test.balances select gen_random_uuid(), 1", "test.balances"),
        ("", "update tally set n = n + 1; update test.balances set balance = 9", "test.balances, test.tally"),
    ];
    for (setup, statement, expected) in cases {
        let bank = open().await;
        sqlx::raw_sql(setup).execute(bank.store.pool()).await.unwrap();
        let statements: &'static str = format!("{FILL}; {statement}").leak();
        let scribe = Scribe { statements, ..PLAIN };
        gate(&bank, scribe).deliver(&bank.log().await, DeliverySource::Bus).await.unwrap();
        let before = row_counts(&bank).await;
        assert_eq!(undeclared(rebuild(gate(&bank, scribe), None).await), expected, "{statement}");
        assert_eq!(undeclared(rebuild(gate(&bank, scribe), None).await), expected, "again");
        assert_eq!(row_counts(&bank).await, before, "{statement}");
        if setup.is_empty() {
            // With the corrected handler the same rebuild is resumed.
            let rebuilt = rebuild(gate(&bank, PLAIN), None).await.unwrap();
            assert_eq!((rebuilt.applied, rebuilt.resumed), (1, true));
            assert_eq!(row_counts(&bank).await, (before.0, 1));
        }
        bank.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rebuild_checks_writes_of_bus_events() {
    let bank = open().await;
    // An event of an aggregate that is not in this service's log.
    let bus = MemoryBus::new();
    let append = Append {
        aggregate: "foreign",
        aggregate_id: Uuid::now_v7(),
        expected: Version::ZERO,
        previous: None,
        events: vec![NewEvent::encode(&crate::account::AccountEvent::from(Deposited { amount: 1 })).unwrap()],
        context: CommandContext::new(),
    };
    let Ok(AppendOutcome::Committed { events, .. }) = MemoryStore::new().append(append).await else {
        panic!("not appended")
    };
    bus.publish(&events).await.unwrap();

    struct Foreign(Scribe);
    #[async_trait]
    impl EventHandler<PgTx> for Foreign {
        type Error = HandlerError;
        fn name(&self) -> &'static str {
            self.0.name
        }
        fn aggregates(&self) -> &'static [&'static str] {
            &["foreign"]
        }
        fn tables(&self) -> &'static [&'static str] {
            self.0.tables
        }
        async fn handle(&self, tx: &mut PgTx, events: &Batch) -> Result<(), HandlerError> {
            self.0.handle(tx, events).await
        }
    }
    let statements = "insert into balances select gen_random_uuid(), 1; update tally set n = n + 1";
    let foreign = || Foreign(Scribe { statements, ..PLAIN });
    gate(&bank, foreign()).deliver(&events, DeliverySource::Bus).await.unwrap();
    let before = row_counts(&bank).await;
    let rebuilding = rebuild(gate(&bank, foreign()), Some(Arc::new(bus)));
    let result = tokio::time::timeout(Duration::from_secs(20), rebuilding).await;
    assert_eq!(undeclared(result.expect("the rebuild fails at once")), "test.tally");
    assert_eq!(row_counts(&bank).await, before);
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn write_checked_handler_rejects_undeclared_writes() {
    let bank = open().await;
    let statements = "insert into balances select gen_random_uuid(), 1; update tally set n = n + 1";
    let undeclaring = Scribe { statements, ..PLAIN };
    let gate_of = |scribe: Scribe| {
        let handler = WriteCheckedHandler::new(Arc::new(scribe));
        PgSubscription::new(handler, bank.store.clone(), bank.progress.clone())
    };
    // Earlier writes on the same connections are not the handler's.
    for _ in 0..30 {
        sqlx::query("update tally set n = 0").execute(bank.store.pool()).await.unwrap();
    }
    let log = bank.log().await;
    let error = gate_of(undeclaring).deliver(&log, DeliverySource::Bus).await.unwrap_err();
    assert!(error.detail.contains("wrote test.tally without"), "{error}");
    assert_eq!(row_counts(&bank).await, (0, 0), "the batch was rolled back");
    let parked: i64 =
        sqlx::query_scalar("select count(*) from dead_letters").fetch_one(bank.store.pool()).await.unwrap();
    assert_eq!(parked, 0, "no event is parked");
    let declaring = Scribe { also_writes: &["tally"], ..undeclaring };
    assert_eq!(gate_of(declaring).deliver(&log, DeliverySource::Bus).await.unwrap().applied, 1);
    assert_eq!(row_counts(&bank).await, (1, 1));

    match rebuild(gate_of(declaring), None).await {
        Err(RebuildError::Shared { tables, .. }) => assert_eq!(tables, "tally"),
        other => panic!("{other:?}"),
    }
    assert!(!bank.progress.status(&declaring).await.unwrap().rebuildable);
    assert!(bank.progress.status(&PLAIN).await.unwrap().rebuildable);
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cascade_is_an_undeclared_write() {
    let bank = open().await;
    let parts = "create table parts (id uuid not null references balances on delete cascade); \
         insert into balances select gen_random_uuid(), 1; insert into parts select id from balances";
    sqlx::raw_sql(parts).execute(bank.store.pool()).await.unwrap();
    let scribe = Scribe { statements: "delete from balances", ..PLAIN };
    let handler = WriteCheckedHandler::new(Arc::new(scribe));
    let gate = PgSubscription::new(handler, bank.store.clone(), bank.progress.clone());
    let error = gate.deliver(&bank.log().await, DeliverySource::Bus).await.unwrap_err();
    assert!(error.detail.contains("wrote test.parts without"), "{error}");
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn newly_declared_table_restarts_the_rebuild() {
    let bank = open().await;
    gate(&bank, PLAIN).deliver(&bank.log().await, DeliverySource::Bus).await.unwrap();
    // An attempt that is stopped after its tables were created.
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    let attempt = Rebuild::new(gate(&bank, PLAIN), None).run(&stop, move |_| stopping.cancel()).await;
    assert!(matches!(attempt, Err(RebuildError::Stopped)), "{attempt:?}");
    let more = Scribe {
        tables: &["balances", "tally"],
        statements: "insert into balances select gen_random_uuid(), 1; insert into tally select 7",
        ..PLAIN
    };
    let rebuilt = rebuild(gate(&bank, more), None).await.unwrap();
    assert_eq!((rebuilt.resumed, rebuilt.applied), (false, 1));
    let tallies: Vec<i64> = sqlx::query_scalar("select n from tally").fetch_all(bank.store.pool()).await.unwrap();
    assert_eq!(tallies, [7], "the table is built from the start");
    bank.close().await;
}

#[test]
fn check_tables_rejects_shared_tables() {
    let scribe = |name, tables, also_writes| -> Arc<dyn PgHandler> {
        Arc::new(Scribe { name, tables, also_writes, statements: "" })
    };
    let disjoint = [scribe("a", &["x"], &["z"]), scribe("b", &["y"], &["z"])];
    assert_eq!(check_tables(&disjoint), Ok(()));
    for writer in [scribe("b", &["y", "x"], &[]), scribe("b", &[], &["x"])] {
        for handlers in [[scribe("a", &["x"], &[]), writer.clone()], [writer.clone(), scribe("a", &["x"], &[])]] {
            let SharedTable { table, owner, writer } = check_tables(&handlers).unwrap_err();
            assert_eq!((table, owner != writer), ("x", true));
        }
    }
}

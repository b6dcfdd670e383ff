//! Which tables a rebuild can swap, and how it copies them.

use epoch::{gate::DeliverySource, handler::Subscription};
use epoch_postgres::{Rebuild, RebuildError, building_generation};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    account::Bank,
    rebuild::{deposits, ids, query, run},
};

#[tokio::test(flavor = "multi_thread")]
async fn rebuilt_tables_keep_indexes_constraints_and_grants() {
    let bank = Bank::open().await;
    deposits(&bank, &ids(2), 1).await;
    bank.subscription().deliver(&bank.log().await, DeliverySource::Bus).await.unwrap();
    let change = "alter table seen add primary key (number); create unique index seen_once on seen (id, version desc); \
         alter table balances add constraint not_mad check (balance < 1000000); \
         alter table seen add constraint of_balance foreign key (id) references balances (id) deferrable initially deferred; \
         create index balances_rich on balances (balance) where balance > 10; grant select on seen to public; \
         alter table balances set (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.05)";
    sqlx::raw_sql(change).execute(bank.store.pool()).await.unwrap();
    let shape = "select epoch_table_shape('test', '{balances,seen}')";
    let before: String = query(&bank, shape).await;
    assert!(
        ["seen_once", "not_mad", "of_balance", "balances_rich", "seen_pkey", "fillfactor=85"]
            .iter()
            .all(|name| before.contains(name))
    );
    run(bank.subscription(), None).await.unwrap();
    assert_eq!(query::<String>(&bank, shape).await, before);
    let public: bool = query(&bank, "select has_table_privilege('public', 'seen', 'select')").await;
    assert!(public);
    assert_eq!(bank.projected().await, bank.folded().await);
    bank.deposit(Uuid::from_u128(1), 1).await;
    bank.subscription().deliver(&bank.log().await, DeliverySource::Bus).await.unwrap();
    assert_eq!(bank.projected().await, bank.folded().await, "identity columns continue");
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_cannot_be_swapped_are_refused_first() {
    let bank = Bank::open().await;
    bank.subscription().deliver(&bank.log().await, DeliverySource::Bus).await.unwrap();
    for (change, reason, undo) in [
        ("create view rich as select * from balances", "view rich", "drop view rich"),
        ("create table other (id uuid references balances (id))", "foreign key", "drop table other"),
        (
            "create function rich(balances) returns boolean language sql as 'select true'",
            "rows of balances",
            "drop function rich",
        ),
        (
            "create function rich(balances[]) returns boolean language sql as 'select true'",
            "rows of balances",
            "drop function rich",
        ),
        (
            "create function rich() returns bigint language sql begin atomic select count(*) from balances; end",
            "reads balances",
            "drop function rich",
        ),
        ("create table other (one balances)", "rows of balances", "drop table other"),
        ("alter table balances add n serial", "serial", "alter table balances drop n"),
        ("alter table seen rename to saw", "seen", "alter table saw rename to seen"),
    ] {
        sqlx::raw_sql(change).execute(bank.store.pool()).await.unwrap();
        let refused = run(bank.subscription(), None).await.unwrap_err();
        assert!(matches!(&refused, RebuildError::Tables { detail, .. } if detail.contains(reason)), "{refused}");
        sqlx::raw_sql(undo).execute(bank.store.pool()).await.unwrap();
    }
    run(bank.subscription(), None).await.unwrap();
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn altered_tables_restart_the_rebuild() {
    let bank = Bank::open().await;
    deposits(&bank, &ids(2), 2).await;
    bank.subscription().deliver(&bank.log().await, DeliverySource::Bus).await.unwrap();
    let stopped = CancellationToken::new();
    stopped.cancel();
    let result = Rebuild::new(bank.subscription(), None).run(&stopped, |_| {}).await;
    assert!(matches!(result, Err(RebuildError::Stopped)), "{result:?}");
    assert!(building_generation(&bank.subscription()).await.unwrap().is_some());
    sqlx::raw_sql("alter table balances add note text").execute(bank.store.pool()).await.unwrap();
    let rebuilt = run(bank.subscription(), None).await.unwrap();
    assert_eq!((rebuilt.generation, rebuilt.resumed), (3, false));
    assert_eq!(bank.projected().await, bank.folded().await);
    sqlx::query("select note from balances").fetch_all(bank.store.pool()).await.unwrap();
    bank.close().await;
}

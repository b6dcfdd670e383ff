//! Position order is commit order: a reader by position misses no event and sees the versions of a stream in order.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use epoch::{CommandContext, Position, store::Streamer};
use epoch_postgres::PgTx;
use futures::{FutureExt, TryStreamExt};
use uuid::Uuid;

use crate::account::{AccountCommand, Bank};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn reader_by_position_misses_nothing_under_rollbacks() {
    let bank = Bank::open().await;
    let (_, other) = bank.another_process().await;
    let done = Arc::new(AtomicBool::new(false));
    let reader = tokio::spawn({
        let (store, done) = (bank.store.clone(), Arc::clone(&done));
        async move {
            let mut seen = Vec::new();
            let mut last = Position::START;
            loop {
                let finished = done.load(Ordering::SeqCst);
                let page: Vec<_> = store.stream_all(&[], last).try_collect().await.unwrap();
                if let Some(event) = page.last() {
                    last = event.position;
                }
                let nothing_new = page.is_empty();
                seen.extend(page.into_iter().map(|event| (event.aggregate_id, event.version.get(), event.position)));
                if finished && nothing_new {
                    return seen;
                }
            }
        }
    });
    let ids: Vec<Uuid> = (0..4).map(|_| Uuid::now_v7()).collect();
    let writers = (0..12_usize).map(|writer| {
        let (store, accounts, ids) =
            (bank.store.clone(), if writer % 2 == 0 { bank.accounts.clone() } else { other.clone() }, ids.clone());
        tokio::spawn(async move {
            for round in 0..40 {
                let id = ids[(writer + round) % ids.len()];
                if writer % 3 == 0 {
                    // A separate transaction; every other one is rolled back after its events were inserted.
                    let accounts = accounts.clone();
                    let undo = round % 2 == 0;
                    let result = store
                        .transaction::<(), epoch_postgres::TxError, _>(move |tx: &mut PgTx| {
                            let accounts = accounts.clone();
                            async move {
                                let note = AccountCommand::Note("tx".into());
                                let context = CommandContext::new();
                                tx.execute(&accounts, id, &note, &context).await.unwrap();
                                if undo {
                                    sqlx::query("select 1 / 0").execute(tx.connection()).await?;
                                }
                                Ok(())
                            }
                            .boxed()
                        })
                        .await;
                    assert_eq!(result.is_err(), undo);
                } else {
                    accounts.execute(id, &AccountCommand::Deposit(1), &CommandContext::new()).await.unwrap();
                }
            }
        })
    });
    for writer in futures::future::join_all(writers).await {
        writer.unwrap();
    }
    done.store(true, Ordering::SeqCst);
    let seen = reader.await.unwrap();
    let all: Vec<_> = bank.store.stream_all(&[], Position::START).try_collect().await.unwrap();
    let all: Vec<_> = all.iter().map(|event| (event.aggregate_id, event.version.get(), event.position)).collect();
    assert_eq!(seen, all, "the reader has seen the log in order");
    let mut versions: HashMap<Uuid, u64> = HashMap::new();
    for (id, version, _) in all {
        let last = versions.entry(id).or_default();
        assert_eq!(version, *last + 1, "versions in position order");
        *last = version;
    }
    assert_eq!(versions.values().sum::<u64>(), 8 * 40 + 4 * 20);
    bank.close().await;
}

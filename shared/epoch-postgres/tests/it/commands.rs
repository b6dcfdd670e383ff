//! Executing commands: versions, conflicts, rejections on cached states, idempotency.

use std::collections::HashSet;

use epoch::{
    Aggregate, CommandContext, ExecuteError, Repository, Version,
    store::{Appender, StoreError, Streamer},
    testkit::store_conformance,
};
use futures::TryStreamExt;
use proptest::prelude::*;
use uuid::Uuid;

use crate::account::{Account, AccountCommand, AccountError, Bank};

#[tokio::test(flavor = "multi_thread")]
async fn pg_store_passes_event_store_conformance() {
    let bank = Bank::open().await;
    store_conformance(&bank.store).await.unwrap();
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_commands_on_one_aggregate_all_commit() {
    let bank = Bank::open().await;
    let (_, other_process) = bank.another_process().await;
    let id = Uuid::now_v7();
    let clients = (0..32).map(|client| {
        let accounts = if client % 2 == 0 { bank.accounts.clone() } else { other_process.clone() };
        tokio::spawn(async move {
            for _ in 0..10 {
                let command = AccountCommand::Note(format!("client {client}"));
                accounts.execute(id, &command, &CommandContext::new()).await?;
            }
            Ok::<_, ExecuteError<AccountError>>(())
        })
    });
    for client in futures::future::join_all(clients).await {
        client.unwrap().expect("conflicts are retried internally");
    }
    let events: Vec<_> = bank.store.stream("account", id, Version::ZERO).try_collect().await.unwrap();
    let versions: Vec<_> = events.iter().map(|event| event.version.get()).collect();
    assert_eq!(versions, (1..=320).collect::<Vec<_>>());
    assert_eq!(events.iter().map(|event| event.metadata.command_id).collect::<HashSet<_>>().len(), 320);
    bank.close().await;
}

/// Most commands are decided on pending states, and the two processes invalidate each other's pending states all the
/// time. A command decided on events that were never committed must not be committed.
#[tokio::test(flavor = "multi_thread")]
async fn commands_never_build_on_uncommitted_events() {
    let bank = Bank::open().await;
    let (_, other_process) = bank.another_process().await;
    let id = Uuid::now_v7();
    bank.deposit(id, 20).await;
    let clients = (0..32_u32).map(|client| {
        let accounts = if client % 2 == 0 { bank.accounts.clone() } else { other_process.clone() };
        tokio::spawn(async move {
            let mut withdrawn = 0;
            for round in 0..20 {
                // Deposits keep the balance near zero, so that withdrawals are both accepted and rejected.
                let command = match (client + round) % 4 {
                    0 => AccountCommand::Deposit(1),
                    _ => AccountCommand::Withdraw(1),
                };
                match accounts.execute(id, &command, &CommandContext::new()).await {
                    Ok(_) if matches!(command, AccountCommand::Withdraw(_)) => withdrawn += 1,
                    Ok(_) | Err(ExecuteError::Rejected(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            withdrawn
        })
    });
    let withdrawn: i64 = futures::future::join_all(clients).await.into_iter().map(|client| client.unwrap()).sum();
    let deposited = 20 + 32 * 20 / 4;
    let events: Vec<_> = bank.store.stream("account", id, Version::ZERO).try_collect().await.unwrap();
    let mut account = Account::default();
    for event in &events {
        account.evolve(&event.decode().unwrap());
        assert!(account.balance >= 0, "negative balance at version {}", event.version);
    }
    assert_eq!(account.balance, deposited - withdrawn, "each accepted command is committed once");
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rejection_on_cached_state_is_decided_again() {
    let bank = Bank::open().await;
    let (_, elsewhere) = bank.another_process().await;
    let id = Uuid::now_v7();
    bank.deposit(id, 1).await;
    elsewhere.execute(id, &AccountCommand::Deposit(10), &CommandContext::new()).await.unwrap();
    // The cache of this process has the balance 1.
    let withdrawn = bank.accounts.execute(id, &AccountCommand::Withdraw(5), &CommandContext::new()).await.unwrap();
    assert_eq!(withdrawn.version, Version::new(3));
    elsewhere.execute(id, &AccountCommand::SetBalance(100), &CommandContext::new()).await.unwrap();
    // The cached balance is 6, so a decision on it would append nothing.
    let set = bank.accounts.execute(id, &AccountCommand::SetBalance(6), &CommandContext::new()).await.unwrap();
    assert_eq!(set.appended, 1);
    let refused = bank.accounts.execute(id, &AccountCommand::Withdraw(7), &CommandContext::new()).await;
    assert!(matches!(refused, Err(ExecuteError::Rejected(AccountError::NotEnough { balance: 6, asked: 7 }))));
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_command_returns_first_result() {
    let bank = Bank::open().await;
    let id = Uuid::now_v7();
    bank.deposit(id, 5).await;
    let context = CommandContext::new().repeatable(Uuid::now_v7(), *b"withdraw 5");
    let first = bank.accounts.execute(id, &AccountCommand::Withdraw(5), &context).await.unwrap();
    let second = bank.accounts.execute(id, &AccountCommand::Withdraw(5), &context).await.unwrap();
    assert_eq!((first.version, second.version), (Version::new(2), Version::new(2)));
    assert!(!first.repeated && second.repeated && second.appended == 0);
    let fresh = Repository::<Account, _>::new(bank.store.clone());
    assert!(fresh.execute(id, &AccountCommand::Withdraw(5), &context).await.unwrap().repeated);
    let reused = context.clone().repeatable(context.command_id, *b"withdraw 1");
    let reused = bank.accounts.execute(id, &AccountCommand::Withdraw(1), &reused).await;
    assert!(matches!(reused, Err(ExecuteError::CommandReused { .. })));
    assert_eq!(bank.store.find_command(Uuid::now_v7(), b"").await.unwrap(), None);
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expected_version_is_checked_on_fresh_state() {
    let bank = Bank::open().await;
    let (_, elsewhere) = bank.another_process().await;
    let id = Uuid::now_v7();
    bank.deposit(id, 1).await;
    elsewhere.execute(id, &AccountCommand::Deposit(1), &CommandContext::new()).await.unwrap();
    let at = |version| CommandContext::new().expecting(Version::new(version));
    let stale = bank.accounts.execute(id, &AccountCommand::Deposit(1), &at(1)).await;
    assert!(matches!(stale, Err(ExecuteError::Stale { actual, .. }) if actual == Version::new(2)));
    assert!(bank.accounts.execute(id, &AccountCommand::Deposit(1), &at(2)).await.is_ok());
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn oversized_event_is_not_committed() {
    let bank = Bank::open().await;
    let id = Uuid::now_v7();
    let huge = AccountCommand::Note("x".repeat(epoch::store::MAX_PAYLOAD_BYTES));
    let refused = bank.accounts.execute(id, &huge, &CommandContext::new()).await;
    assert!(matches!(refused, Err(ExecuteError::Store(StoreError::Codec(_)))), "{refused:?}");
    assert_eq!(bank.accounts.load(id).await.unwrap().version, Version::ZERO);
    bank.close().await;
}

#[test]
fn commands_of_two_processes_fold_to_one_state() {
    // All cases share a database; each has its own aggregate.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let bank = runtime.block_on(Bank::open());
    let (_, other) = runtime.block_on(bank.another_process());
    let commands = prop::collection::vec((any::<bool>(), 0..3_u8, 1..20_i64), 1..25);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(24));
    let result = runner.run(&commands, |commands| {
        let id = Uuid::now_v7();
        let (expected, version) = runtime.block_on(async {
            let mut balance = 0;
            let mut version = 0;
            for (elsewhere, kind, amount) in commands {
                let accounts = if elsewhere { &other } else { &bank.accounts };
                let command = match kind {
                    0 => AccountCommand::Deposit(amount),
                    1 => AccountCommand::Withdraw(amount),
                    _ => AccountCommand::SetBalance(amount),
                };
                match accounts.execute(id, &command, &CommandContext::new()).await {
                    Ok(executed) => {
                        version += executed.appended as u64;
                        assert_eq!(executed.version, Version::new(version));
                        balance = match kind {
                            0 => balance + amount,
                            1 => balance - amount,
                            _ => amount,
                        };
                    }
                    Err(ExecuteError::Rejected(AccountError::NotEnough { balance: known, .. })) => {
                        assert_eq!((known, kind), (balance, 1));
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            (balance, version)
        });
        for accounts in [&bank.accounts, &other] {
            let loaded = runtime.block_on(accounts.load(id)).unwrap();
            prop_assert_eq!((loaded.state.balance, loaded.version), (expected, Version::new(version)));
        }
        Ok(())
    });
    runtime.block_on(bank.close());
    result.unwrap();
}

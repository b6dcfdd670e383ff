//! The outcomes of `execute` under concurrent writes.

use std::{sync::atomic::Ordering, time::Duration};

use epoch::{
    CommandContext, ExecuteError, Repository, Version, memory::MemoryStore, retry::RetryPolicy, testkit::given,
};
use proptest::prelude::*;
use uuid::Uuid;

use crate::counter::{ContendedStore, Counted, Counter, CounterCommand, NotEnough};

const LIMIT: Duration = Duration::from_secs(20);
const QUICK: RetryPolicy = RetryPolicy { attempts: 4, first: Duration::ZERO, limit: Duration::ZERO };

fn commands() -> impl Strategy<Value = CounterCommand> {
    prop_oneof![
        (1..10_i64).prop_map(CounterCommand::Count),
        Just(CounterCommand::Look),
        (0..20_i64).prop_map(CounterCommand::Reach),
        (1..20_i64).prop_map(CounterCommand::Take),
    ]
}

#[test]
fn counter_decides_as_specified() {
    given::<Counter>([Counted { by: 2 }.into()])
        .when(&CounterCommand::Take(1))
        .then([Counted { by: -1 }.into()])
        .when(&CounterCommand::Reach(1))
        .then_nothing()
        .when(&CounterCommand::Take(2))
        .then_rejected(|error| *error == NotEnough { left: 1 });
}

proptest! {
    /// Another writer wins some races and appends in between, with and without a cache. Each outcome must equal a
    /// decision on the actual state.
    #[test]
    fn every_outcome_is_decided_on_the_newest_state(
        steps in prop::collection::vec((commands(), 0..4_u32, any::<bool>()), 1..30),
        cache in prop_oneof![Just(0_u64), Just(100)],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = ContendedStore::default();
            let counters = Repository::<Counter, _>::new(store.clone()).with_cache(cache).with_retry(QUICK);
            let (id, mut count, mut version) = (Uuid::now_v7(), 0, 0);
            for (command, wins, before) in steps {
                if before {
                    store.count(id).await;
                    (count, version) = (count + 1, version + 1);
                }
                store.wins.store(wins, Ordering::SeqCst);
                let result = counters.execute(id, &command, &CommandContext::new()).await;
                let won = i64::from(wins - store.wins.swap(0, Ordering::SeqCst));
                (count, version) = (count + won, version + u64::try_from(won).unwrap());
                match (result, command) {
                    (Ok(executed), command) => {
                        version += executed.appended as u64;
                        assert_eq!(executed.version, Version::new(version), "the framework counts versions");
                        match command {
                            CounterCommand::Count(by) => count += by,
                            CounterCommand::Look => assert_eq!(executed.appended, 1),
                            CounterCommand::Rest => assert_eq!(executed.appended, 0),
                            CounterCommand::Reach(target) => {
                                assert_eq!(executed.appended == 0, target == count, "{target} of {count}");
                                count = target;
                            }
                            CounterCommand::Take(by) => {
                                assert!(by <= count);
                                count -= by;
                            }
                        }
                    }
                    (Err(ExecuteError::Rejected(NotEnough { left })), CounterCommand::Take(by)) => {
                        assert!(by > left && left == count, "rejected on the actual state");
                    }
                    (result, command) => panic!("{command:?}: {result:?}"),
                }
            }
            let loaded = Repository::<Counter, _>::new(store.store.clone()).load(id).await.unwrap();
            assert_eq!((loaded.state.count, loaded.version), (count, Version::new(version)));
        });
    }
}

#[tokio::test]
async fn conflict_is_returned_only_when_attempts_run_out() {
    let store = ContendedStore::default();
    let counters = Repository::<Counter, _>::new(store.clone()).with_retry(QUICK);
    let id = Uuid::now_v7();
    store.wins.store(3, Ordering::SeqCst);
    assert_eq!(counters.execute(id, &CounterCommand::Look, &CommandContext::new()).await.unwrap().version.get(), 4);
    store.wins.store(4, Ordering::SeqCst);
    let lost = counters.execute(id, &CounterCommand::Look, &CommandContext::new()).await;
    assert!(
        matches!(lost, Err(ExecuteError::Conflict { aggregate: "counter", expected, actual, .. }) if actual > expected),
        "{lost:?}"
    );
}

#[tokio::test]
async fn no_op_has_as_many_attempts_as_a_command_with_events() {
    let store = ContendedStore::default();
    let counters = Repository::<Counter, _>::new(store.clone()).with_retry(QUICK);
    let id = Uuid::now_v7();
    store.count(id).await;
    // The result of a repeatable no-op is stored, so the command is committed at a version like any other.
    let repeatable = || CommandContext::new().repeatable(Uuid::now_v7(), b"rest");
    store.wins.store(3, Ordering::SeqCst);
    let rested = counters.execute(id, &CounterCommand::Rest, &repeatable()).await.unwrap();
    assert_eq!((rested.appended, rested.version.get()), (0, 4), "decided again on the competing events");
    store.wins.store(u32::MAX, Ordering::SeqCst);
    let lost = tokio::time::timeout(LIMIT, counters.execute(id, &CounterCommand::Rest, &repeatable())).await;
    let lost = lost.expect("conflict within the time limit");
    assert!(
        matches!(lost, Err(ExecuteError::Conflict { expected, actual, .. }) if actual.get() == 8 && expected.get() == 7),
        "{lost:?}"
    );
    let attempts = u32::MAX - store.wins.load(Ordering::SeqCst);
    assert_eq!(attempts, QUICK.attempts, "attempts equal those of a command with events");
}

#[tokio::test]
async fn create_of_an_existing_aggregate_uses_its_state() {
    let store = ContendedStore::default();
    let counters = Repository::<Counter, _>::new(store.clone()).with_cache(0).with_retry(QUICK);
    let id = Uuid::now_v7();
    counters.create(id, &CounterCommand::Count(5), &CommandContext::new()).await.unwrap();
    let reached = counters.create(id, &CounterCommand::Reach(5), &CommandContext::new()).await.unwrap();
    assert_eq!((reached.appended, reached.version.get()), (0, 1));
    let taken = counters.create(id, &CounterCommand::Take(5), &CommandContext::new()).await.unwrap();
    assert_eq!(taken.version.get(), 2, "rejected on the default state, decided again on the actual one");
}

#[tokio::test]
async fn find_repeated_returns_the_first_outcome() {
    let counters = Repository::<Counter, _>::new(MemoryStore::new());
    let (id, first) = (Uuid::now_v7(), Uuid::now_v7());
    let context = |digest: &[u8]| CommandContext::new().repeatable(first, digest);
    assert_eq!(counters.find_repeated(&context(b"two")).await.unwrap(), None);
    let executed = counters.execute(id, &CounterCommand::Count(2), &context(b"two")).await.unwrap();
    counters.execute(id, &CounterCommand::Count(3), &CommandContext::new()).await.unwrap();
    let repeated = counters.find_repeated(&context(b"two")).await.unwrap().unwrap();
    assert_eq!(
        (repeated.aggregate_id, repeated.version, repeated.appended, repeated.repeated),
        (id, executed.version, 0, true)
    );
    let reused = counters.find_repeated(&context(b"three")).await;
    assert!(matches!(reused, Err(ExecuteError::CommandReused { command_id }) if command_id == first), "{reused:?}");
    assert_eq!(counters.find_repeated(&CommandContext::new()).await.unwrap(), None, "a command that is not repeatable");
}

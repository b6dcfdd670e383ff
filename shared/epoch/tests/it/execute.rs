//! What `execute` promises, whoever else writes.

use std::{sync::atomic::Ordering, time::Duration};

use epoch::{
    CommandContext, ExecuteError, Repository, Version, memory::MemoryStore, retry::RetryPolicy, testkit::given,
};
use proptest::prelude::*;
use uuid::Uuid;

use crate::counter::{Counted, Counter, CounterCommand, NotEnough, Rivals};

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
fn decides_as_the_specification_says() {
    given::<Counter>([Counted { by: 2 }.into()])
        .when(&CounterCommand::Take(1))
        .then([Counted { by: -1 }.into()])
        .when(&CounterCommand::Reach(1))
        .then_nothing()
        .when(&CounterCommand::Take(2))
        .then_rejected(|error| *error == NotEnough { left: 1 });
}

proptest! {
    /// Others win some races and count in between; the cache is on or off. Each result must be the one of a decision on
    /// what really stood there.
    #[test]
    fn every_result_was_decided_on_the_newest_state(
        steps in prop::collection::vec((commands(), 0..4_u32, any::<bool>()), 1..30),
        cache in prop_oneof![Just(0_u64), Just(100)],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let rivals = Rivals::default();
            let counters = Repository::<Counter, _>::new(rivals.clone()).with_cache(cache).with_retry(QUICK);
            let (id, mut count, mut version) = (Uuid::now_v7(), 0, 0);
            for (command, wins, before) in steps {
                if before {
                    rivals.count(id).await;
                    (count, version) = (count + 1, version + 1);
                }
                rivals.wins.store(wins, Ordering::SeqCst);
                let result = counters.execute(id, &command, &CommandContext::new()).await;
                let won = i64::from(wins - rivals.wins.swap(0, Ordering::SeqCst));
                (count, version) = (count + won, version + u64::try_from(won).unwrap());
                match (result, command) {
                    (Ok(executed), command) => {
                        version += executed.appended as u64;
                        assert_eq!(executed.version, Version::new(version), "the framework counts versions");
                        match command {
                            CounterCommand::Count(by) => count += by,
                            CounterCommand::Look => assert_eq!(executed.appended, 1),
                            CounterCommand::Rest => assert_eq!(executed.appended, 0),
                            CounterCommand::Reach(wanted) => {
                                assert_eq!(executed.appended == 0, wanted == count, "{wanted} of {count}");
                                count = wanted;
                            }
                            CounterCommand::Take(by) => {
                                assert!(by <= count);
                                count -= by;
                            }
                        }
                    }
                    (Err(ExecuteError::Rejected(NotEnough { left })), CounterCommand::Take(by)) => {
                        assert!(by > left && left == count, "refused on what really was there");
                    }
                    (result, command) => panic!("{command:?}: {result:?}"),
                }
            }
            let loaded = Repository::<Counter, _>::new(rivals.store.clone()).load(id).await.unwrap();
            assert_eq!((loaded.state.count, loaded.version), (count, Version::new(version)));
        });
    }
}

#[tokio::test]
async fn a_conflict_is_told_only_when_attempts_run_out() {
    let rivals = Rivals::default();
    let counters = Repository::<Counter, _>::new(rivals.clone()).with_retry(QUICK);
    let id = Uuid::now_v7();
    rivals.wins.store(3, Ordering::SeqCst);
    assert_eq!(counters.execute(id, &CounterCommand::Look, &CommandContext::new()).await.unwrap().version.get(), 4);
    rivals.wins.store(4, Ordering::SeqCst);
    let lost = counters.execute(id, &CounterCommand::Look, &CommandContext::new()).await;
    assert!(
        matches!(lost, Err(ExecuteError::Conflict { aggregate: "counter", expected, actual, .. }) if actual > expected),
        "{lost:?}"
    );
}

#[tokio::test]
async fn a_command_without_events_loses_as_often_as_any_other() {
    let rivals = Rivals::default();
    let counters = Repository::<Counter, _>::new(rivals.clone()).with_retry(QUICK);
    let id = Uuid::now_v7();
    rivals.count(id).await;
    // Its result is kept under its id, so it is decided at a version like any other.
    let repeatable = || CommandContext::new().repeatable(Uuid::now_v7(), b"rest");
    rivals.wins.store(3, Ordering::SeqCst);
    let rested = counters.execute(id, &CounterCommand::Rest, &repeatable()).await.unwrap();
    assert_eq!((rested.appended, rested.version.get()), (0, 4), "decided again on what the others did");
    rivals.wins.store(u32::MAX, Ordering::SeqCst);
    let lost = tokio::time::timeout(LIMIT, counters.execute(id, &CounterCommand::Rest, &repeatable())).await;
    let lost = lost.expect("it is told and not tried for ever");
    assert!(
        matches!(lost, Err(ExecuteError::Conflict { expected, actual, .. }) if actual.get() == 8 && expected.get() == 7),
        "{lost:?}"
    );
    let tried = u32::MAX - rivals.wins.load(Ordering::SeqCst);
    assert_eq!(tried, QUICK.attempts, "as many attempts as a command with events");
}

#[tokio::test]
async fn creating_what_exists_is_decided_on_what_exists() {
    let rivals = Rivals::default();
    let counters = Repository::<Counter, _>::new(rivals.clone()).with_cache(0).with_retry(QUICK);
    let id = Uuid::now_v7();
    counters.create(id, &CounterCommand::Count(5), &CommandContext::new()).await.unwrap();
    let reached = counters.create(id, &CounterCommand::Reach(5), &CommandContext::new()).await.unwrap();
    assert_eq!((reached.appended, reached.version.get()), (0, 1));
    let taken = counters.create(id, &CounterCommand::Take(5), &CommandContext::new()).await.unwrap();
    assert_eq!(taken.version.get(), 2, "refused on the empty state, decided again on the real one");
}

#[tokio::test]
async fn what_a_command_came_to_can_be_asked_without_executing_it() {
    let counters = Repository::<Counter, _>::new(MemoryStore::new());
    let (id, first) = (Uuid::now_v7(), Uuid::now_v7());
    let asked = |digest: &[u8]| CommandContext::new().repeatable(first, digest);
    assert_eq!(counters.repeated(&asked(b"two")).await.unwrap(), None);
    let executed = counters.execute(id, &CounterCommand::Count(2), &asked(b"two")).await.unwrap();
    counters.execute(id, &CounterCommand::Count(3), &CommandContext::new()).await.unwrap();
    let again = counters.repeated(&asked(b"two")).await.unwrap().unwrap();
    assert_eq!((again.aggregate_id, again.version, again.appended, again.repeated), (id, executed.version, 0, true));
    let reused = counters.repeated(&asked(b"three")).await;
    assert!(matches!(reused, Err(ExecuteError::CommandReused { command_id }) if command_id == first), "{reused:?}");
    assert_eq!(counters.repeated(&CommandContext::new()).await.unwrap(), None, "what can't come again");
}

//! What every bus promises, tried on any of them.
//!
//! The problem: four buses behind one trait are one bus only if the same tests pass on all four.
//!
//! The invariant: nothing here knows which bus it tries. A kind of bus brings a [`BusFactory`]; each promise is a function of
//! its own, and [`bus_conformance!`](crate::bus_conformance) makes a test of each.

mod group;
pub mod kit;
mod probe;

use std::{
    collections::{HashMap, HashSet},
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures::FutureExt;
use tokio::sync::Semaphore;

pub use self::{group::a_group_keeps_order_whoever_comes_and_goes, probe::AGGREGATE};
use self::{
    kit::{LIMIT, ids, not_now, wait_until},
    probe::{Mark, Probe, event, events, mark},
};
use crate::{
    bus::Bus,
    envelope::{Batch, Envelope},
};

/// Makes buses of one kind. Each factory is a broker of its own to the suite: nobody else's events, nobody else's groups.
#[async_trait]
pub trait BusFactory: Send + Sync + 'static {
    /// A bus as one more process would have it.
    async fn bus(&self) -> Arc<dyn Bus>;

    /// Puts a message that is no event among those of [`AGGREGATE`]; `false` where there can be no such message.
    async fn publish_stray(&self) -> bool;

    /// The most events that the members of a group may have in hand at once.
    fn in_hand(&self) -> usize;

    /// Whether the members of a group work at the same time; else one does and the others stand by.
    fn shares(&self) -> bool;

    /// Takes away what it made, after a test that passed.
    async fn close(&self) {}
}

/// A test for each promise of [`testkit::bus`](crate::testkit::bus); the argument is a future of a
/// [`Factory`](crate::testkit::bus::Factory), or of an `Option` of one that is `None` where there is no broker.
#[macro_export]
macro_rules! bus_conformance {
    ($factory:expr) => {
        $crate::bus_conformance! { $factory;
            each_aggregate_in_order
            an_event_arrives_as_it_was
            every_subscription_gets_everything
            who_comes_late_begins_at_the_beginning
            who_comes_back_goes_on_where_it_was
            a_batch_that_is_refused_comes_again
            what_a_crash_leaves_undone_comes_again
            a_slow_subscription_is_not_flooded
            what_is_no_event_is_passed_over
            an_aggregate_that_fails_holds_up_no_other
            a_group_keeps_order_whoever_comes_and_goes
        }
    };
    ($factory:expr; $($promise:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $promise() {
                let factory = $factory.await;
                if let Some(factory) = ::std::convert::Into::<Option<$crate::testkit::bus::Factory>>::into(factory) {
                    $crate::testkit::bus::$promise(::std::sync::Arc::clone(&factory)).await;
                    factory.close().await;
                }
            }
        )*
    };
}

/// What makes the buses of one test.
pub type Factory = Arc<dyn BusFactory>;

/// Publishes as a relay does: what the bus didn't take is given to it again, from the first that it hasn't.
async fn publish(bus: &Arc<dyn Bus>, events: &Batch) {
    let start = Instant::now();
    for batch in events.chunks(200) {
        let mut left = batch;
        while let Err(error) = bus.publish(left).await {
            assert!(start.elapsed() < LIMIT, "not published: {error}");
            left = left.get(error.acknowledged..).unwrap_or_default();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// First appearances of each aggregate's events are in version order, from 1.
fn assert_order(handed: &[Mark]) {
    let mut next: HashMap<_, u64> = HashMap::new();
    for (id, version) in handed {
        let next = next.entry(id).or_insert(1);
        assert!(version <= next, "{id}: {version} was handed over before {next}");
        *next = (*next).max(version + 1);
    }
}

/// Each of these was applied once, and each aggregate's in order.
fn assert_exactly_once(applied: &[Mark], published: &[Arc<Envelope>]) {
    let mut applied = applied.to_vec();
    let mut expected: Vec<Mark> = published.iter().map(|event| mark(event)).collect();
    // Stable: of each aggregate it keeps the order.
    applied.sort_by_key(|(id, _)| *id);
    expected.sort_by_key(|(id, _)| *id);
    assert_eq!(applied, expected, "what was applied");
}

/// Order per aggregate, at least once.
///
/// # Panics
/// When the bus breaks the promise; so do all the others.
pub async fn each_aggregate_in_order(factory: Factory) {
    let (bus, probe) = (factory.bus().await, Probe::new("ordered"));
    let published = events(&ids(20), 1..=50);
    let consuming = probe.consume(&bus);
    publish(&bus, &published).await;
    probe.wait_for(published.len()).await;
    consuming.stopped().await;
    assert_order(&probe.book.handed());
    assert_exactly_once(&probe.marks(), &published);
}

/// Every field of the envelope travels.
///
/// # Panics
/// When the bus breaks the promise.
pub async fn an_event_arrives_as_it_was(factory: Factory) {
    let (bus, probe) = (factory.bus().await, Probe::new("unchanged"));
    let published = [event(ids(1)[0], 1)];
    let consuming = probe.consume(&bus);
    publish(&bus, &published).await;
    probe.wait_for(1).await;
    consuming.stopped().await;
    assert_eq!(probe.applied(), published);
}

/// Fan-out.
///
/// # Panics
/// When the bus breaks the promise.
pub async fn every_subscription_gets_everything(factory: Factory) {
    let bus = factory.bus().await;
    let probes = [Probe::new("one"), Probe::new("another"), Probe::new("third")];
    let published = events(&ids(10), 1..=20);
    let consuming: Vec<_> = probes.iter().map(|probe| probe.consume(&bus)).collect();
    publish(&bus, &published).await;
    for (probe, consuming) in probes.iter().zip(consuming) {
        probe.wait_for(published.len()).await;
        consuming.stopped().await;
        assert_exactly_once(&probe.marks(), &published);
    }
}

/// A subscription that is new gets what was published before there was a thought of it.
///
/// # Panics
/// When the bus breaks the promise.
pub async fn who_comes_late_begins_at_the_beginning(factory: Factory) {
    let (bus, probe, ids) = (factory.bus().await, Probe::new("late"), ids(10));
    let mut published = events(&ids, 1..=60);
    publish(&bus, &published).await;
    let later = factory.bus().await;
    let consuming = probe.consume(&later);
    probe.wait_for(1).await;
    let newer = events(&ids, 61..=70);
    publish(&bus, &newer).await;
    published.extend(newer);
    probe.wait_for(published.len()).await;
    consuming.stopped().await;
    assert_order(&probe.book.handed());
    assert_exactly_once(&probe.marks(), &published);
}

/// A subscription that stopped and comes back is not given everything again.
///
/// # Panics
/// When the bus breaks the promise.
pub async fn who_comes_back_goes_on_where_it_was(factory: Factory) {
    let (probe, ids) = (Probe::new("returning"), ids(10));
    let mut published = Vec::new();
    for round in 0..3 {
        let bus = factory.bus().await;
        let newer = events(&ids, round * 10 + 1..=round * 10 + 10);
        // Before anybody consumes: who creates a topic together with somebody else may have to publish again.
        publish(&bus, &newer).await;
        published.extend(newer);
        let consuming = probe.consume(&bus);
        probe.wait_for(published.len()).await;
        consuming.stopped().await;
    }
    assert_exactly_once(&probe.marks(), &published);
    assert_eq!(probe.book.handed().len(), published.len(), "nothing was handed over twice");
}

/// A delivery that fails, or whose success nobody hears of, is made again before anything later.
///
/// # Panics
/// When the bus breaks the promise.
pub async fn a_batch_that_is_refused_comes_again(factory: Factory) {
    let calls = Arc::new(AtomicUsize::new(0));
    let (before, after) = (Arc::clone(&calls), Arc::clone(&calls));
    let refuse = |refused: bool| async move { if refused { Err(not_now()) } else { Ok(()) } }.boxed();
    let probe = Probe::new("refusing")
        .before(Arc::new(move |_| refuse(before.fetch_add(1, Ordering::SeqCst) % 3 == 0)))
        .after(Arc::new(move |_| refuse(after.load(Ordering::SeqCst) % 3 == 2)));
    let (bus, published) = (factory.bus().await, events(&ids(5), 1..=50));
    let consuming = probe.consume(&bus);
    publish(&bus, &published).await;
    probe.wait_for(published.len()).await;
    consuming.stopped().await;
    assert_order(&probe.book.handed());
    assert_exactly_once(&probe.marks(), &published);
}

/// A process that dies with a batch in hand, applied but not answered, loses nothing and turns nothing round.
///
/// # Panics
/// When the bus breaks the promise.
#[allow(clippy::expect_used, reason = "a test kit fails tests by panicking")]
pub async fn what_a_crash_leaves_undone_comes_again(factory: Factory) {
    let (bus, probe, published) = (factory.bus().await, Probe::new("crashing"), events(&ids(5), 1..=100));
    let (first, second) = published.split_at(published.len() / 2);
    publish(&bus, first).await;
    let process = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let process = process.expect("a runtime");
    let hung = Arc::new(AtomicBool::new(false));
    let hanging = probe.clone().after(Arc::new({
        let hung = Arc::clone(&hung);
        move |_| {
            hung.store(true, Ordering::SeqCst);
            pending().boxed()
        }
    }));
    process.spawn(async move {
        let bus = factory.bus().await;
        let _consuming = hanging.consume(&bus);
        pending::<()>().await;
    });
    wait_until("a batch is in hand", || hung.load(Ordering::SeqCst)).await;
    process.shutdown_background();
    let (before, handed) = (probe.marks(), probe.book.handed().len());
    assert!(!before.is_empty(), "it had applied something");

    let consuming = probe.consume(&bus);
    publish(&bus, second).await;
    probe.wait_for(published.len()).await;
    consuming.stopped().await;
    assert_exactly_once(&probe.marks(), &published);
    assert_order(&probe.book.handed());
    let handed = probe.book.handed().split_off(handed);
    let again: HashSet<_> = handed.iter().collect();
    assert!(before.iter().all(|mark| again.contains(mark)), "what was in hand came again");
}

/// Back pressure: however much there is, a subscription is handed a bounded part of it at a time.
///
/// # Panics
/// When the bus breaks the promise.
pub async fn a_slow_subscription_is_not_flooded(factory: Factory) {
    let permits = Arc::new(Semaphore::new(0));
    let waiting = Arc::clone(&permits);
    let probe = Probe::new("slow").before(Arc::new(move |_| {
        let permits = Arc::clone(&waiting);
        async move {
            permits.acquire().await.map_err(|_| not_now())?.forget();
            Ok(())
        }
        .boxed()
    }));
    let (bus, published) = (factory.bus().await, events(&ids(30), 1..=100));
    let consuming = probe.consume(&bus);
    // Nothing is taken yet, and yet publishing goes on.
    publish(&bus, &published).await;
    while probe.applied_count() < published.len() {
        let applied = probe.applied_count();
        permits.add_permits(1);
        wait_until("the next batch", || probe.applied_count() > applied).await;
    }
    consuming.stopped().await;
    assert!(probe.book.most() <= factory.in_hand(), "{} events were in hand", probe.book.most());
    assert_exactly_once(&probe.marks(), &published);
}

/// A message that can't be read stops nobody.
///
/// # Panics
/// When the bus breaks the promise.
pub async fn what_is_no_event_is_passed_over(factory: Factory) {
    let (bus, probe, ids) = (factory.bus().await, Probe::new("undisturbed"), ids(5));
    let mut published = events(&ids, 1..=5);
    publish(&bus, &published).await;
    if !factory.publish_stray().await {
        return;
    }
    let newer = events(&ids, 6..=10);
    publish(&bus, &newer).await;
    published.extend(newer);
    let consuming = probe.consume(&bus);
    probe.wait_for(published.len()).await;
    consuming.stopped().await;
    assert_exactly_once(&probe.marks(), &published);
}

/// A handler that fails for one aggregate gets all the others' events.
///
/// # Panics
/// When the bus breaks the promise.
pub async fn an_aggregate_that_fails_holds_up_no_other(factory: Factory) {
    let ids = ids(10);
    let (poisoned, others) = (ids[0], &ids[1..]);
    let probe = Probe::refusing("poisoned", Some(poisoned));
    let (bus, published) = (factory.bus().await, events(&ids, 1..=20));
    let consuming = probe.consume(&bus);
    publish(&bus, &published).await;
    probe.wait_for(others.len() * 20).await;
    consuming.stopped().await;
    let expected: Vec<_> = published.iter().filter(|event| event.aggregate_id != poisoned).cloned().collect();
    assert_exactly_once(&probe.marks(), &expected);
    assert!(probe.is_parked(poisoned).await, "it waits for somebody to say what shall become of it");
}

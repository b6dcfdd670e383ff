//! Processes that share a subscription.
//!
//! The problem: members come and go while events arrive, and each hand-over is a chance to lose, repeat or reorder something.
//! The invariant: the suite sees each hand-over and knows whose it was; load goes on until those that should work have worked.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures::FutureExt;
use uuid::Uuid;

use super::{
    Factory, assert_exactly_once, assert_order,
    kit::{Consuming, LIMIT, ids},
    probe::{Probe, events},
    publish,
};
use crate::{bus::Bus, envelope::Envelope};

/// Two processes that serve one group, and what they are kept busy with.
struct Pair {
    buses: [Arc<dyn Bus>; 2],
    probe: Probe,
    /// How many events each of them was handed.
    had: Arc<[AtomicUsize; 2]>,
    shares: bool,
    ids: Vec<Uuid>,
    published: Vec<Arc<Envelope>>,
}

impl Pair {
    fn consume<const MEMBER: usize>(&self) -> Consuming {
        let had = Arc::clone(&self.had);
        let member = self.probe.member(MEMBER).before(Arc::new(move |events| {
            had[MEMBER].fetch_add(events.len(), Ordering::SeqCst);
            async {
                // Long enough for both to have something to do.
                tokio::time::sleep(Duration::from_millis(2)).await;
                Ok(())
            }
            .boxed()
        }));
        member.consume(&self.buses[MEMBER])
    }

    /// Publishes until each of these members has worked, or one of them where they don't share.
    async fn work(&mut self, members: &[usize]) {
        let had = || self.had.each_ref().map(|had| had.load(Ordering::SeqCst));
        let (start, before) = (Instant::now(), had());
        loop {
            let now = had();
            let working = members.iter().filter(|&&member| now[member] > before[member] + 100).count();
            if working >= if self.shares { members.len() } else { 1 } {
                return;
            }
            assert!(start.elapsed() < LIMIT, "members {members:?} don't work: {before:?}, now {now:?}");
            if self.published.len() < self.probe.applied_count() + 1_000 {
                let version = (self.published.len() / self.ids.len()) as u64 + 1;
                let batch = events(&self.ids, version..=version);
                publish(&self.buses[0], &batch).await;
                self.published.extend(batch);
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// Processes that serve one group come and go: nothing is lost, no aggregate is in two hands at once, order is kept; where
/// members share, both work.
///
/// # Panics
/// When the bus breaks the promise.
pub async fn a_group_keeps_order_whoever_comes_and_goes(factory: Factory) {
    let mut pair = Pair {
        buses: [factory.bus().await, factory.bus().await],
        probe: Probe::new("shared"),
        had: Arc::default(),
        shares: factory.shares(),
        ids: ids(24),
        published: Vec::new(),
    };
    let (first, second) = (pair.consume::<0>(), pair.consume::<1>());
    pair.work(&[0, 1]).await;
    first.stopped().await;
    pair.work(&[1]).await;
    let first = pair.consume::<0>();
    pair.work(&[0, 1]).await;
    pair.probe.wait_for(pair.published.len()).await;
    first.stopped().await;
    second.stopped().await;
    assert_exactly_once(&pair.probe.marks(), &pair.published);
    assert_order(&pair.probe.book.handed());
    assert_eq!(pair.probe.book.overlaps(), 0, "an aggregate was in two hands at once");
}

//! The check of the suite for groups of several processes.
//!
//! Members join and leave while events arrive, and each hand-over is a chance to lose, repeat or reorder events. The
//! check records every delivery with its member, and publishes until each member that should work has worked.

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
    checks::{assert_exactly_once, assert_order, publish},
    factory::Factory,
    kit::{ConsumerTask, LIMIT, ids},
    probe::{Probe, events},
};
use crate::{delivery::bus::Bus, event::envelope::Envelope};

/// Two processes of one group and their load.
struct Pair {
    buses: [Arc<dyn Bus>; 2],
    probe: Probe,
    /// The number of events delivered to each process.
    delivered: Arc<[AtomicUsize; 2]>,
    shares: bool,
    ids: Vec<Uuid>,
    published: Vec<Arc<Envelope>>,
}

impl Pair {
    fn consume<const MEMBER: usize>(&self) -> ConsumerTask {
        let delivered = Arc::clone(&self.delivered);
        let member = self.probe.member(MEMBER).before(Arc::new(move |events| {
            delivered[MEMBER].fetch_add(events.len(), Ordering::SeqCst);
            async {
                // Slow enough that both members get work.
                tokio::time::sleep(Duration::from_millis(2)).await;
                Ok(())
            }
            .boxed()
        }));
        member.consume(&self.buses[MEMBER])
    }

    /// Publishes until each of these members has worked, or one of them where members do not share work.
    async fn work(&mut self, members: &[usize]) {
        let delivered = || self.delivered.each_ref().map(|count| count.load(Ordering::SeqCst));
        let (start, before) = (Instant::now(), delivered());
        loop {
            let now = delivered();
            let working = members.iter().filter(|&&member| now[member] > before[member] + 100).count();
            if working >= if self.shares { members.len() } else { 1 } {
                return;
            }
            assert!(start.elapsed() < LIMIT, "members {members:?} do not work: {before:?} before, {now:?} now");
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

/// Checks that a group with joining and leaving members loses nothing, keeps order, and never delivers one aggregate to
/// two members at once. Where members share work, both must work.
///
/// # Panics
/// When the check fails.
pub async fn group_keeps_order_when_members_change(factory: Factory) {
    let mut pair = Pair {
        buses: [factory.bus().await, factory.bus().await],
        probe: Probe::new("shared"),
        delivered: Arc::default(),
        shares: factory.shares_work(),
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
    assert_exactly_once(&pair.probe.keys(), &pair.published);
    assert_order(&pair.probe.log.delivered());
    assert_eq!(pair.probe.log.overlaps(), 0, "an aggregate was delivered to two members at once");
}

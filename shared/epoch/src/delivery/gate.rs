//! The delivery gate: one decision for all delivery sources.
//!
//! An event reaches a subscription from up to three sources: from the fast path right after commit, from a bus, or from
//! a replay. It may arrive several times and in several processes at once. Still, a subscription applies each
//! aggregate's events exactly once and in version order: it keeps one cursor per aggregate in the transaction of its
//! effects, and this module decides from the cursor alone. The gate needs no memory of its own and no time limit for
//! duplicates.

use std::fmt;

use crate::event::version::Version;

/// Where a delivery comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeliverySource {
    /// The committing process, right after commit. Events after a gap are dropped, since the bus delivers them again.
    FastPath,
    /// A bus, which delivers at least once and in version order.
    Bus,
    /// The event store.
    Replay,
}

impl DeliverySource {
    /// Returns the label value used in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::FastPath => "local",
            Self::Bus => "bus",
            Self::Replay => "replay",
        }
    }
}

impl fmt::Display for DeliverySource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Why an aggregate is parked for one subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ParkReason {
    /// Events are missing. Delivery resumes when they arrive.
    Gap,
    /// The handler failed. Delivery resumes when an operator retries or skips the event.
    Failed,
}

/// A subscription's progress with one aggregate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cursor {
    /// The last applied version.
    pub version: Version,
    /// Set while later events are queued instead of applied.
    pub parked: Option<ParkReason>,
}

/// The gate's decision about an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Apply the event; the cursor has advanced to it.
    Apply,
    /// Drop the event; it was applied before.
    Duplicate,
    /// Drop the event; an earlier one is missing, and the bus will deliver both.
    Gap,
    /// Queue the event in version order; the aggregate is parked.
    Queue,
}

impl Cursor {
    /// Decides about an event of this aggregate and advances the cursor.
    pub fn judge(&mut self, version: Version, source: DeliverySource) -> Verdict {
        if version <= self.version {
            return Verdict::Duplicate;
        }
        let in_order = version == self.version.next();
        match (self.parked, source) {
            (None | Some(ParkReason::Gap), _) if in_order => {
                self.version = version;
                Verdict::Apply
            }
            (_, DeliverySource::FastPath) => Verdict::Gap,
            (None, _) => {
                self.parked = Some(ParkReason::Gap);
                Verdict::Queue
            }
            (Some(_), _) => Verdict::Queue,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::{Cursor, DeliverySource, ParkReason, Verdict};
    use crate::event::version::Version;

    /// A subscription with its queue of parked events.
    #[derive(Default)]
    struct Subscription {
        cursor: Cursor,
        queue: BTreeSet<Version>,
        applied: Vec<u64>,
    }

    impl Subscription {
        fn deliver(&mut self, version: u64, source: DeliverySource) {
            match self.cursor.judge(Version::new(version), source) {
                Verdict::Apply => self.applied.push(version),
                Verdict::Queue => drop(self.queue.insert(Version::new(version))),
                Verdict::Duplicate | Verdict::Gap => {}
            }
            if self.cursor.parked == Some(ParkReason::Gap) {
                self.release();
            }
        }

        fn release(&mut self) {
            while let Some(first) = self.queue.pop_first() {
                if first > self.cursor.version.next() {
                    self.queue.insert(first);
                    return;
                }
                if first == self.cursor.version.next() {
                    self.cursor.version = first;
                    self.applied.push(first.get());
                }
            }
            self.cursor.parked = None;
        }
    }

    fn sources() -> impl Strategy<Value = DeliverySource> {
        prop_oneof![Just(DeliverySource::FastPath), Just(DeliverySource::Bus), Just(DeliverySource::Replay)]
    }

    proptest! {
        #[test]
        fn events_apply_once_and_in_order_from_any_source(
            arrivals in prop::collection::vec((1..=20_u64, sources()), 0..200),
        ) {
            let mut subscription = Subscription::default();
            for (version, source) in arrivals {
                subscription.deliver(version, source);
            }
            let so_far = subscription.applied.len() as u64;
            prop_assert_eq!(&subscription.applied, &(1..=so_far).collect::<Vec<_>>());
            // After the bus has delivered every event at least once, none is missing.
            for version in 1..=20 {
                subscription.deliver(version, DeliverySource::Bus);
            }
            prop_assert_eq!(&subscription.applied, &(1..=20).collect::<Vec<_>>());
            prop_assert_eq!(subscription.cursor.parked, None);
        }

        #[test]
        fn failed_aggregate_queues_later_events(arrivals in prop::collection::vec((1..=20_u64, sources()), 0..100)) {
            let mut cursor = Cursor { version: Version::new(5), parked: Some(ParkReason::Failed) };
            for (version, source) in arrivals {
                let verdict = cursor.judge(Version::new(version), source);
                let expected = match (version, source) {
                    (..=5, _) => Verdict::Duplicate,
                    (_, DeliverySource::FastPath) => Verdict::Gap,
                    _ => Verdict::Queue,
                };
                prop_assert_eq!(verdict, expected);
            }
            prop_assert_eq!(cursor, Cursor { version: Version::new(5), parked: Some(ParkReason::Failed) });
        }
    }
}

//! The delivery gate: one decision for every way in.
//!
//! The problem: an event reaches a subscription by three ways, locally right after commit, over a bus, or by replay,
//! perhaps several times and from several processes at once.
//!
//! The invariant: a subscription applies each aggregate's events exactly once, in version order, whichever way they come.
//! It keeps one cursor an aggregate, in the same transaction as its effects; this module decides by the cursor alone. It needs no
//! memory of its own and no time limit on duplicates.

use std::fmt;

use crate::version::Version;

/// How an event came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Way {
    /// From the process that committed it, right after commit. Gives up when it can't go on.
    Local,
    /// From a bus, at least once and in version order.
    Bus,
    /// From the store itself.
    Replay,
}

impl Way {
    /// The name used in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Bus => "bus",
            Self::Replay => "replay",
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Why an aggregate is held back for one subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Parked {
    /// Events are missing; it goes on by itself when they come.
    Gap,
    /// The handler failed; it goes on when somebody says `retry` or `skip`.
    Failed,
}

/// How far a subscription is with one aggregate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cursor {
    /// The last version applied.
    pub version: Version,
    /// Set when later events queue instead of being applied.
    pub parked: Option<Parked>,
}

/// What to do with an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Apply it; the cursor has moved to it.
    Apply,
    /// It was applied before: drop it.
    Duplicate,
    /// An event before it is missing and this way doesn't wait: leave it to the bus.
    Gap,
    /// Keep it in the aggregate's queue, in version order; the aggregate is parked.
    Queue,
}

impl Cursor {
    /// Decides about the next event of this aggregate and moves the cursor.
    pub fn judge(&mut self, version: Version, way: Way) -> Verdict {
        if version <= self.version {
            return Verdict::Duplicate;
        }
        let in_order = version == self.version.next();
        match (self.parked, way) {
            (None | Some(Parked::Gap), _) if in_order => {
                self.version = version;
                Verdict::Apply
            }
            (_, Way::Local) => Verdict::Gap,
            (None, _) => {
                self.parked = Some(Parked::Gap);
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

    use super::{Cursor, Parked, Verdict, Way};
    use crate::version::Version;

    /// A subscription with its queue, as a store would keep it.
    #[derive(Default)]
    struct Subscription {
        cursor: Cursor,
        queue: BTreeSet<Version>,
        applied: Vec<u64>,
    }

    impl Subscription {
        fn deliver(&mut self, version: u64, way: Way) {
            match self.cursor.judge(Version::new(version), way) {
                Verdict::Apply => self.applied.push(version),
                Verdict::Queue => drop(self.queue.insert(Version::new(version))),
                Verdict::Duplicate | Verdict::Gap => {}
            }
            if self.cursor.parked == Some(Parked::Gap) {
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

    fn ways() -> impl Strategy<Value = Way> {
        prop_oneof![Just(Way::Local), Just(Way::Bus), Just(Way::Replay)]
    }

    proptest! {
        #[test]
        fn every_event_once_and_in_order_whichever_way_it_comes(
            arrivals in prop::collection::vec((1..=20_u64, ways()), 0..200),
        ) {
            let mut subscription = Subscription::default();
            for (version, way) in arrivals {
                subscription.deliver(version, way);
            }
            let so_far = subscription.applied.len() as u64;
            prop_assert_eq!(&subscription.applied, &(1..=so_far).collect::<Vec<_>>());
            // The bus brings everything at least once: then nothing is missing.
            for version in 1..=20 {
                subscription.deliver(version, Way::Bus);
            }
            prop_assert_eq!(&subscription.applied, &(1..=20).collect::<Vec<_>>());
            prop_assert_eq!(subscription.cursor.parked, None);
        }

        #[test]
        fn a_failed_aggregate_stays_where_it_is(arrivals in prop::collection::vec((1..=20_u64, ways()), 0..100)) {
            let mut cursor = Cursor { version: Version::new(5), parked: Some(Parked::Failed) };
            for (version, way) in arrivals {
                let verdict = cursor.judge(Version::new(version), way);
                let expected = match (version, way) {
                    (..=5, _) => Verdict::Duplicate,
                    (_, Way::Local) => Verdict::Gap,
                    _ => Verdict::Queue,
                };
                prop_assert_eq!(verdict, expected);
            }
            prop_assert_eq!(cursor, Cursor { version: Version::new(5), parked: Some(Parked::Failed) });
        }
    }
}

//! Ranges of a stream.
//!
//! A range cuts events off both ends of a stream and never leaves gaps. It applies to one aggregate's stream by version
//! and to the whole store by position.

use crate::event::version::{Position, Version};

/// A range of a stream: of one aggregate by [`Version`], of the whole store by [`Position`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bounds<P> {
    /// The exclusive lower end.
    pub after: P,
    /// The inclusive upper end.
    pub up_to: Option<P>,
    /// The maximum number of events.
    pub limit: Option<u64>,
}

/// A range of one aggregate's stream.
pub type Versions = Bounds<Version>;
/// A range of the store's stream.
pub type Positions = Bounds<Position>;

impl<P: Copy + Ord + Default> Bounds<P> {
    /// Returns the unbounded range.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// Returns the range of everything after `after`.
    #[must_use]
    pub fn since(after: P) -> Self {
        Self { after, ..Self::default() }
    }

    /// Ends the range with `last`, unless it ends earlier.
    #[must_use]
    pub fn up_to(mut self, last: P) -> Self {
        self.up_to = Some(self.up_to.map_or(last, |known| known.min(last)));
        self
    }

    /// Limits the range to `events` events, unless it is limited further.
    #[must_use]
    pub fn limit(mut self, events: u64) -> Self {
        self.limit = Some(self.limit.map_or(events, |known| known.min(events)));
        self
    }

    /// Returns whether `at` lies between the ends.
    #[must_use]
    pub fn contains(&self, at: P) -> bool {
        at > self.after && self.up_to.is_none_or(|last| at <= last)
    }

    /// Returns the range that remains after `events` events up to `at` were read, or `None` when it is exhausted.
    #[must_use]
    pub fn rest(&self, at: P, events: u64) -> Option<Self> {
        let limit = self.limit.map(|limit| limit.saturating_sub(events));
        let exhausted = limit == Some(0) || self.up_to.is_some_and(|last| at >= last);
        (!exhausted).then_some(Self { after: at.max(self.after), up_to: self.up_to, limit })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Pages of any size together equal the whole range.
        #[test]
        fn concatenated_pages_equal_the_range(
            length in 0..40_u64,
            after in 0..45_u64,
            up_to in proptest::option::of(0..45_u64),
            limit in proptest::option::of(0..45_u64),
            page in 1..7_usize,
        ) {
            let bounds = Bounds { after: Version::new(after), up_to: up_to.map(Version::new), limit };
            let within = |bounds: Versions| {
                let count = usize::try_from(bounds.limit.unwrap_or(u64::MAX)).unwrap();
                (1..=length).map(Version::new).filter(move |at| bounds.contains(*at)).take(count)
            };
            let mut paged = Vec::new();
            let mut rest = bounds.rest(bounds.after, 0);
            while let Some(bounds) = rest {
                let read: Vec<_> = within(bounds).take(page).collect();
                rest = read.last().and_then(|last| bounds.rest(*last, read.len() as u64));
                paged.extend(read);
            }
            prop_assert_eq!(paged, within(bounds).collect::<Vec<_>>());
        }
    }
}

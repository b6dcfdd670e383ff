//! Which part of a stream to read.
//!
//! The problem: "everything since", "up to here" and "at most so many" are asked of each kind of stream, and each would be one
//! more method.
//!
//! The invariant: bounds only leave out from the ends. What is read is without holes, in order, and never more than asked for.

use crate::version::{Position, Version};

/// A part of a stream: one aggregate's by [`Version`], the whole store's by [`Position`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bounds<P> {
    /// Only what comes after this one.
    pub after: P,
    /// Nothing beyond this one; it is read itself.
    pub up_to: Option<P>,
    /// At most so many events.
    pub limit: Option<u64>,
}

/// A part of one aggregate's stream.
pub type Versions = Bounds<Version>;
/// A part of the store's stream.
pub type Positions = Bounds<Position>;

impl<P: Copy + Ord + Default> Bounds<P> {
    /// Everything.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// Everything after `after`.
    #[must_use]
    pub fn since(after: P) -> Self {
        Self { after, ..Self::default() }
    }

    /// The same, ending with `last`.
    #[must_use]
    pub fn up_to(mut self, last: P) -> Self {
        self.up_to = Some(self.up_to.map_or(last, |known| known.min(last)));
        self
    }

    /// The same, ending after `events` events.
    #[must_use]
    pub fn limit(mut self, events: u64) -> Self {
        self.limit = Some(self.limit.map_or(events, |known| known.min(events)));
        self
    }

    /// Whether `at` lies between the ends.
    #[must_use]
    pub fn contains(&self, at: P) -> bool {
        at > self.after && self.up_to.is_none_or(|last| at <= last)
    }

    /// What is left when everything up to `at`, `events` events, has been read; `None` when nothing is.
    #[must_use]
    pub fn rest(&self, at: P, events: u64) -> Option<Self> {
        let limit = self.limit.map(|limit| limit.saturating_sub(events));
        let over = limit == Some(0) || self.up_to.is_some_and(|last| at >= last);
        (!over).then_some(Self { after: at.max(self.after), up_to: self.up_to, limit })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Read in pages of any size, bounds give what they give in one piece.
        #[test]
        fn pages_put_together_are_the_whole(
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

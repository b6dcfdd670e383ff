//! What is wrong with something that came from outside, and where.

/// Bad input: the place, as in `plans[0].charges[1].tiers`, and the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {reason}")]
pub struct Refused {
    /// Where; empty for the whole.
    pub place: String,
    /// Why.
    pub reason: String,
}

impl Refused {
    /// Something wrong at a place.
    pub fn new(place: impl Into<String>, reason: impl std::fmt::Display) -> Self {
        Self { place: place.into(), reason: reason.to_string() }
    }

    /// The same, seen from further out: `place` within `outer`.
    #[must_use]
    pub fn within(self, outer: &str) -> Self {
        let place = match self.place.as_str() {
            "" => outer.to_owned(),
            place if place.starts_with('[') => format!("{outer}{place}"),
            place => format!("{outer}.{place}"),
        };
        Self { place, ..self }
    }
}

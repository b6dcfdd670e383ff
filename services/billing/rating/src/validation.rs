//! What is wrong with something that came from outside, and where.

use crate::money::decimal::Decimal;

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

/// The longest name and reason, in characters.
pub(crate) const MAX_TEXT: usize = 200;

pub(crate) fn text(place: &'static str, text: &str) -> Result<(), Refused> {
    match text.trim().chars().count() {
        0 => Err(Refused::new(place, "is empty")),
        1..=MAX_TEXT => Ok(()),
        _ => Err(Refused::new(place, format!("is longer than {MAX_TEXT} characters"))),
    }
}

pub(crate) fn percent(place: &'static str, percent: Option<&Decimal>) -> Result<Decimal, Refused> {
    match percent {
        None => Ok(Decimal::zero()),
        Some(percent) if *percent > Decimal::from(100) => Err(Refused::new(place, "is more than 100")),
        Some(percent) => Ok(percent.clone()),
    }
}

//! Validation errors with the place of the input, and shared validators.

use crate::money::decimal::Decimal;

/// Invalid input: the place, such as `plans[0].charges[1].tiers`, and the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {reason}")]
pub struct InvalidInput {
    /// The path of the input; empty for the input as a whole.
    pub place: String,
    pub reason: String,
}

impl InvalidInput {
    /// Creates an error for a place.
    pub fn new(place: impl Into<String>, reason: impl std::fmt::Display) -> Self {
        Self { place: place.into(), reason: reason.to_string() }
    }

    /// Prefixes the place with `outer`.
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

/// The maximum length of names and reasons, in characters.
pub(crate) const MAX_TEXT: usize = 200;

pub(crate) fn text(place: &'static str, text: &str) -> Result<(), InvalidInput> {
    match text.trim().chars().count() {
        0 => Err(InvalidInput::new(place, "is empty")),
        1..=MAX_TEXT => Ok(()),
        _ => Err(InvalidInput::new(place, format!("is longer than {MAX_TEXT} characters"))),
    }
}

pub(crate) fn percent(place: &'static str, percent: Option<&Decimal>) -> Result<Decimal, InvalidInput> {
    match percent {
        None => Ok(Decimal::zero()),
        Some(percent) if *percent > Decimal::from(100) => Err(InvalidInput::new(place, "is more than 100")),
        Some(percent) => Ok(percent.clone()),
    }
}

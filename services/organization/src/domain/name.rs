//! Names that people give.
//!
//! The problem: a name is shown in lists, logs and invoices, and must fit there.
//!
//! The invariant: a [`Name`] has 1 to 200 characters, no control characters, and no space around it.

use std::fmt;

/// A name that can be shown anywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name(String);

/// Why text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// There is nothing in it.
    #[error("a name must not be empty")]
    Empty,
    /// It is too long.
    #[error("a name has at most {} characters, not {characters}", Name::MAX_CHARACTERS)]
    TooLong {
        /// How long it is.
        characters: usize,
    },
    /// It has characters that aren't shown.
    #[error("a name must not contain control characters")]
    ControlCharacter,
}

impl Name {
    /// The longest name.
    pub const MAX_CHARACTERS: usize = 200;

    /// The name in `text`, without the space around it.
    ///
    /// # Errors
    /// [`NameError`] when it is not a name.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let name = text.trim();
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        let characters = name.chars().count();
        if characters > Self::MAX_CHARACTERS {
            return Err(NameError::TooLong { characters });
        }
        if name.chars().any(char::is_control) {
            return Err(NameError::ControlCharacter);
        }
        Ok(Self(name.to_owned()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::{Name, NameError};

    #[test]
    fn takes_what_can_be_shown() {
        for (text, name) in [("A", "A"), ("  Müller & Söhne \n", "Müller & Söhne"), ("株式会社", "株式会社")]
        {
            assert_eq!(Name::parse(text).unwrap().as_str(), name);
        }
        assert!(Name::parse(&"ü".repeat(200)).is_ok(), "characters count, not bytes");
    }

    #[test]
    fn refuses_what_cannot() {
        assert_eq!(Name::parse(" \t"), Err(NameError::Empty));
        assert_eq!(Name::parse(&"x".repeat(201)), Err(NameError::TooLong { characters: 201 }));
        for text in ["a\nb", "a\0b", "a\u{7f}b", "a\u{85}b"] {
            assert_eq!(Name::parse(text), Err(NameError::ControlCharacter), "{text:?}");
        }
    }
}

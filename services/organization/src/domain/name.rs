//! Display names of organizations, people and API keys.
//!
//! A [`Name`] has 1 to 200 characters, no control characters and no surrounding whitespace, so that lists, logs and
//! invoices can print it without further checks.

use std::fmt;

/// Validated display name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name(String);

/// Rejection of a text as a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text is empty or whitespace.
    #[error("a name must not be empty")]
    Empty,
    /// The text has more than [`Name::MAX_CHARACTERS`] characters.
    #[error("a name has at most {} characters, not {characters}", Name::MAX_CHARACTERS)]
    TooLong { characters: usize },
    /// The text contains a control character.
    #[error("a name must not contain control characters")]
    ControlCharacter,
}

impl Name {
    /// Maximum length in characters.
    pub const MAX_CHARACTERS: usize = 200;

    /// Parses a name and trims surrounding whitespace.
    ///
    /// # Errors
    /// [`NameError`] for any other text.
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

    /// Returns the name as text.
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
    fn parse_trims_and_counts_characters() {
        for (text, name) in [("A", "A"), ("  Müller & Söhne \n", "Müller & Söhne"), ("株式会社", "株式会社")]
        {
            assert_eq!(Name::parse(text).unwrap().as_str(), name);
        }
        assert!(Name::parse(&"ü".repeat(200)).is_ok(), "the limit counts characters, not bytes");
    }

    #[test]
    fn parse_rejects_empty_long_and_control_texts() {
        assert_eq!(Name::parse(" \t"), Err(NameError::Empty));
        assert_eq!(Name::parse(&"x".repeat(201)), Err(NameError::TooLong { characters: 201 }));
        for text in ["a\nb", "a\0b", "a\u{7f}b", "a\u{85}b"] {
            assert_eq!(Name::parse(text), Err(NameError::ControlCharacter), "{text:?}");
        }
    }
}

//! Text that people write.
//!
//! The problem: a name of a million characters, or one that a database can't store, must not get into an event that is
//! kept for good. The invariant: text is checked before it becomes part of an event.

/// The most characters of a name.
pub const MAX_NAME: usize = 200;
/// The most characters of a reason.
pub const MAX_REASON: usize = 1_000;

/// Why text isn't taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidText {
    /// Nothing is left after trimming.
    #[error("must not be empty")]
    Empty,
    /// It is too long.
    #[error("must have at most {limit} characters")]
    TooLong {
        /// The most characters.
        limit: usize,
    },
    /// It has characters that can't be shown.
    #[error("must not have control characters")]
    Control,
}

/// A name: trimmed, 1 to [`MAX_NAME`] characters, none of them a control character.
///
/// # Errors
/// [`InvalidText`].
pub fn name(text: &str) -> Result<String, InvalidText> {
    let name = text.trim();
    if name.chars().any(char::is_control) {
        return Err(InvalidText::Control);
    }
    sized(name, MAX_NAME)
}

/// A reason: trimmed, 1 to [`MAX_REASON`] characters; it may have lines and tabs, but no other control characters.
///
/// # Errors
/// [`InvalidText`].
pub fn reason(text: &str) -> Result<String, InvalidText> {
    let reason = text.trim();
    if reason.chars().any(|character| character.is_control() && character != '\n' && character != '\t') {
        return Err(InvalidText::Control);
    }
    sized(reason, MAX_REASON)
}

fn sized(text: &str, limit: usize) -> Result<String, InvalidText> {
    match text.chars().count() {
        0 => Err(InvalidText::Empty),
        length if length > limit => Err(InvalidText::TooLong { limit }),
        _ => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::{InvalidText, MAX_NAME, MAX_REASON, name, reason};

    #[test]
    fn names_are_trimmed_and_bounded() {
        assert_eq!(name("  Checksum \n").as_deref(), Ok("Checksum"));
        assert_eq!(name(&"ä".repeat(MAX_NAME)).map(|name| name.chars().count()), Ok(MAX_NAME));
        assert_eq!(name(&"ä".repeat(MAX_NAME + 1)), Err(InvalidText::TooLong { limit: MAX_NAME }));
        assert_eq!(name(" \t "), Err(InvalidText::Empty));
        for control in ["a\0b", "a\nb", "a\u{7f}b", "a\u{85}b"] {
            assert_eq!(name(control), Err(InvalidText::Control), "{control:?}");
        }
    }

    #[test]
    fn reasons_may_have_lines() {
        assert_eq!(reason(" no\n\tspace ").as_deref(), Ok("no\n\tspace"));
        assert_eq!(reason("a\0b"), Err(InvalidText::Control));
        assert_eq!(reason(""), Err(InvalidText::Empty));
        assert_eq!(reason(&"a".repeat(MAX_REASON + 1)), Err(InvalidText::TooLong { limit: MAX_REASON }));
    }
}

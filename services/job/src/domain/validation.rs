//! Validation of user-supplied text, before it becomes part of a permanent event.

/// Maximum length of a name, in characters.
pub const MAX_NAME_CHARS: usize = 200;
/// Maximum length of a reason, in characters.
pub const MAX_REASON_CHARS: usize = 1_000;

/// Validation errors of user-supplied text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidText {
    /// Empty after trimming.
    #[error("must not be empty")]
    Empty,
    #[error("must have at most {limit} characters")]
    TooLong { limit: usize },
    #[error("must not contain control characters")]
    Control,
}

/// Returns the trimmed name: 1 to [`MAX_NAME_CHARS`] characters, no control characters.
///
/// # Errors
/// [`InvalidText`] names the violated rule.
pub fn validate_name(text: &str) -> Result<String, InvalidText> {
    let name = text.trim();
    if name.chars().any(char::is_control) {
        return Err(InvalidText::Control);
    }
    validate_length(name, MAX_NAME_CHARS)
}

/// Returns the trimmed reason: 1 to [`MAX_REASON_CHARS`] characters, no control characters except line feeds and tabs.
///
/// # Errors
/// [`InvalidText`] names the violated rule.
pub fn validate_reason(text: &str) -> Result<String, InvalidText> {
    let reason = text.trim();
    if reason.chars().any(|character| character.is_control() && character != '\n' && character != '\t') {
        return Err(InvalidText::Control);
    }
    validate_length(reason, MAX_REASON_CHARS)
}

fn validate_length(text: &str, limit: usize) -> Result<String, InvalidText> {
    match text.chars().count() {
        0 => Err(InvalidText::Empty),
        length if length > limit => Err(InvalidText::TooLong { limit }),
        _ => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::{InvalidText, MAX_NAME_CHARS, MAX_REASON_CHARS, validate_name, validate_reason};

    #[test]
    fn name_is_trimmed_and_limited_in_length() {
        assert_eq!(validate_name("  Checksum \n").as_deref(), Ok("Checksum"));
        assert_eq!(validate_name(&"ä".repeat(MAX_NAME_CHARS)).map(|name| name.chars().count()), Ok(MAX_NAME_CHARS));
        assert_eq!(validate_name(&"ä".repeat(MAX_NAME_CHARS + 1)), Err(InvalidText::TooLong { limit: MAX_NAME_CHARS }));
        assert_eq!(validate_name(" \t "), Err(InvalidText::Empty));
        for control in ["a\0b", "a\nb", "a\u{7f}b", "a\u{85}b"] {
            assert_eq!(validate_name(control), Err(InvalidText::Control), "{control:?}");
        }
    }

    #[test]
    fn reason_allows_line_feeds_and_tabs() {
        assert_eq!(validate_reason(" no\n\tspace ").as_deref(), Ok("no\n\tspace"));
        assert_eq!(validate_reason("a\0b"), Err(InvalidText::Control));
        assert_eq!(validate_reason(""), Err(InvalidText::Empty));
        assert_eq!(
            validate_reason(&"a".repeat(MAX_REASON_CHARS + 1)),
            Err(InvalidText::TooLong { limit: MAX_REASON_CHARS })
        );
    }
}

//! Validators of file names and media types.
//!
//! Names and media types come from clients, and appear in headers, pages and directories of machines. A valid name is
//! one path component and cannot lead out of a directory. A valid media type fits into a header.

/// Maximum number of characters of a name.
pub const MAX_NAME_CHARS: usize = 200;

/// Maximum number of bytes of a name: the limit of common file systems.
pub const MAX_NAME_BYTES: usize = 255;

/// Maximum number of characters of a media type.
pub const MAX_CONTENT_TYPE_CHARS: usize = 200;

/// Rejection of a text as a file name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFileName {
    #[error("a file name must have 1 to {MAX_NAME_CHARS} characters and at most {MAX_NAME_BYTES} bytes")]
    Length,
    /// The text is not one path component.
    #[error("a file name must not be . or .., and must not contain a slash, a backslash or control characters")]
    Characters,
}

/// Rejection of a text as a media type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a content type must be type/subtype with at most {MAX_CONTENT_TYPE_CHARS} characters")]
pub struct InvalidContentType;

/// Validates a file name and trims surrounding whitespace.
///
/// # Errors
/// [`InvalidFileName`] for any other text.
pub fn validate_file_name(text: &str) -> Result<&str, InvalidFileName> {
    let name = text.trim();
    let chars = name.chars().count();
    if !(1..=MAX_NAME_CHARS).contains(&chars) || name.len() > MAX_NAME_BYTES {
        return Err(InvalidFileName::Length);
    }
    let leaves_directory = matches!(name, "." | "..") || name.contains(['/', '\\']);
    if leaves_directory || name.chars().any(char::is_control) {
        return Err(InvalidFileName::Characters);
    }
    Ok(name)
}

/// Validates a media type, with or without parameters, and trims surrounding whitespace.
///
/// # Errors
/// [`InvalidContentType`] for any other text.
pub fn validate_content_type(text: &str) -> Result<&str, InvalidContentType> {
    let content_type = text.trim();
    let fits_a_header = content_type.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    if content_type.len() > MAX_CONTENT_TYPE_CHARS || !fits_a_header {
        return Err(InvalidContentType);
    }
    let essence = content_type.split(';').next().unwrap_or_default().trim_end();
    match essence.split_once('/') {
        Some((kind, subtype)) if is_token(kind) && is_token(subtype) => Ok(content_type),
        _ => Err(InvalidContentType),
    }
}

/// Returns whether a text is a token of RFC 9110, section 5.6.2.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{InvalidContentType, InvalidFileName, validate_content_type, validate_file_name};

    #[test]
    fn file_name_must_be_one_path_component() {
        assert_eq!(validate_file_name("  Größe 1.csv "), Ok("Größe 1.csv"));
        assert_eq!(validate_file_name("...").map(str::len), Ok(3));
        assert!(validate_file_name(&"x".repeat(200)).is_ok());
        for wrong in ["", "   ", &"x".repeat(201), &"ä".repeat(128)] {
            assert_eq!(validate_file_name(wrong), Err(InvalidFileName::Length), "{wrong}");
        }
        for wrong in [".", "..", "../a", "/etc/passwd", "a\\b", "a\nb", "a\0b", "a\u{7f}", "a\u{85}b"] {
            assert_eq!(validate_file_name(wrong), Err(InvalidFileName::Characters), "{wrong:?}");
        }
    }

    #[test]
    fn content_type_must_be_type_and_subtype() {
        for right in ["text/csv", "application/vnd.x+json", "text/plain; charset=utf-8"] {
            assert_eq!(validate_content_type(right), Ok(right));
        }
        for wrong in ["", "text", "/", "text/", "/csv", "te xt/csv", "text/c\nsv", "text/ä", "a/b/c", &"x".repeat(201)]
        {
            assert_eq!(validate_content_type(wrong), Err(InvalidContentType), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn valid_name_stays_in_its_directory(text in "\\PC{0,20}|[./\\\\a]{0,6}") {
            if let Ok(name) = validate_file_name(&text) {
                let path = std::path::Path::new("/staging").join(name);
                prop_assert_eq!(path.parent(), Some(std::path::Path::new("/staging")));
                prop_assert_eq!(path.components().count(), 3);
            }
        }
    }
}

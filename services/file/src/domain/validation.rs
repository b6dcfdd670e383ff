//! What a file may be called, and what it may be said to be.
//!
//! The problem: names and types come from outside and end up in headers, in pages and in directories of machines.
//!
//! The invariant: a name is one component of a path and can't lead out of a directory; a media type fits into a header.

/// The most characters of a name.
pub const MAX_NAME_CHARS: usize = 200;

/// The most bytes of a name: what common file systems take.
pub const MAX_NAME_BYTES: usize = 255;

/// The most characters of a media type.
pub const MAX_CONTENT_TYPE_CHARS: usize = 200;

/// Text that can't be a file's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// Too short or too long.
    #[error("a file's name has 1 to {MAX_NAME_CHARS} characters and {MAX_NAME_BYTES} bytes at most")]
    Length,
    /// It would be more than one component of a path, or not a component.
    #[error("a file's name can't be . or .., or contain a slash, a backslash or control characters")]
    Characters,
}

/// Text that isn't a media type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a content type reads type/subtype, with {MAX_CONTENT_TYPE_CHARS} characters at most")]
pub struct BadContentType;

/// The name as it is kept.
///
/// # Errors
/// [`BadName`].
pub fn file_name(text: &str) -> Result<&str, BadName> {
    let name = text.trim();
    let chars = name.chars().count();
    if !(1..=MAX_NAME_CHARS).contains(&chars) || name.len() > MAX_NAME_BYTES {
        return Err(BadName::Length);
    }
    let leads_elsewhere = matches!(name, "." | "..") || name.contains(['/', '\\']);
    if leads_elsewhere || name.chars().any(char::is_control) {
        return Err(BadName::Characters);
    }
    Ok(name)
}

/// The media type as it is kept; parameters may follow it.
///
/// # Errors
/// [`BadContentType`].
pub fn content_type(text: &str) -> Result<&str, BadContentType> {
    let content_type = text.trim();
    let fits_a_header = content_type.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    if content_type.len() > MAX_CONTENT_TYPE_CHARS || !fits_a_header {
        return Err(BadContentType);
    }
    let essence = content_type.split(';').next().unwrap_or_default().trim_end();
    match essence.split_once('/') {
        Some((kind, subtype)) if is_token(kind) && is_token(subtype) => Ok(content_type),
        _ => Err(BadContentType),
    }
}

/// RFC 9110, section 5.6.2.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{BadContentType, BadName, content_type, file_name};

    #[test]
    fn names_are_one_component_of_a_path() {
        assert_eq!(file_name("  Größe 1.csv "), Ok("Größe 1.csv"));
        assert_eq!(file_name("...").map(str::len), Ok(3));
        assert!(file_name(&"x".repeat(200)).is_ok());
        for wrong in ["", "   ", &"x".repeat(201), &"ä".repeat(128)] {
            assert_eq!(file_name(wrong), Err(BadName::Length), "{wrong}");
        }
        for wrong in [".", "..", "../a", "/etc/passwd", "a\\b", "a\nb", "a\0b", "a\u{7f}", "a\u{85}b"] {
            assert_eq!(file_name(wrong), Err(BadName::Characters), "{wrong:?}");
        }
    }

    #[test]
    fn content_types_read_type_and_subtype() {
        for right in ["text/csv", "application/vnd.x+json", "text/plain; charset=utf-8"] {
            assert_eq!(content_type(right), Ok(right));
        }
        for wrong in ["", "text", "/", "text/", "/csv", "te xt/csv", "text/c\nsv", "text/ä", "a/b/c", &"x".repeat(201)]
        {
            assert_eq!(content_type(wrong), Err(BadContentType), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn a_name_joined_to_a_directory_stays_in_it(text in "\\PC{0,20}|[./\\\\a]{0,6}") {
            if let Ok(name) = file_name(&text) {
                let path = std::path::Path::new("/staging").join(name);
                prop_assert_eq!(path.parent(), Some(std::path::Path::new("/staging")));
                prop_assert_eq!(path.components().count(), 3);
            }
        }
    }
}

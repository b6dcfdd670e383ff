//! HTML escaping of user-provided text, such as file names.
//!
//! Escaped text is safe as the content of an element and inside a quoted attribute.

use std::fmt;

/// Text that is escaped when it is formatted.
#[derive(Debug, Clone, Copy)]
pub struct Escaped<'t>(pub &'t str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some((at, entity)) = rest.char_indices().find_map(|(at, character)| Some((at, entity(character)?))) {
            let (before, special) = rest.split_at(at);
            formatter.write_str(before)?;
            formatter.write_str(entity)?;
            // All five special characters are one byte long.
            rest = special.get(1..).unwrap_or_default();
        }
        formatter.write_str(rest)
    }
}

const fn entity(character: char) -> Option<&'static str> {
    match character {
        '&' => Some("&amp;"),
        '<' => Some("&lt;"),
        '>' => Some("&gt;"),
        '"' => Some("&quot;"),
        '\'' => Some("&#39;"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::Escaped;

    #[test]
    fn special_characters_are_escaped() {
        let cases = [
            ("", ""),
            ("plain", "plain"),
            ("<a href=\"x\">", "&lt;a href=&quot;x&quot;&gt;"),
            ("Jürgen's & <ω>", "Jürgen&#39;s &amp; &lt;ω&gt;"),
            ("&amp;", "&amp;amp;"),
        ];
        for (text, expected) in cases {
            assert_eq!(Escaped(text).to_string(), expected);
        }
    }
}

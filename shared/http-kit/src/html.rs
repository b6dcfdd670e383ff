//! Text in HTML.
//!
//! The problem: a name that somebody gave a file must not become markup on a page that somebody else reads.
//!
//! The invariant: escaped text stands for itself, as an element's content and within a quoted attribute.

use std::fmt;

/// Text that is escaped where it is written.
#[derive(Debug, Clone, Copy)]
pub struct Escaped<'t>(pub &'t str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some((at, entity)) = rest.char_indices().find_map(|(at, found)| Some((at, entity(found)?))) {
            let (before, special) = rest.split_at(at);
            formatter.write_str(before)?;
            formatter.write_str(entity)?;
            // All five are one byte long.
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
    fn nothing_is_markup() {
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

//! File names of inputs in an attempt's directory.
//!
//! Uploaders choose file names freely, and several inputs of a job may have the same name. An input name is a single visible
//! path component of at most [`MAX_BYTES`] bytes, unique among the inputs of the job.

use std::collections::HashSet;

/// Maximum length of an input name, in bytes. File systems allow 255.
pub(crate) const MAX_BYTES: usize = 120;

/// Maximum length of an extension that survives truncation of the name, in bytes including the dot.
const MAX_EXTENSION_BYTES: usize = 16;

/// Returns the input name of a file called `name`, different from all names in `taken`.
pub(crate) fn input_name(name: &str, taken: &HashSet<String>) -> String {
    let sanitized: String = name.chars().map(|char| if is_unsafe(char) { '_' } else { char }).collect();
    let visible = sanitized.trim_start_matches(|char: char| char == '.' || char.is_whitespace()).trim_end();
    let visible = if visible.is_empty() { "file" } else { visible };
    let (stem, extension) = split_extension(visible);
    let mut number = 1_usize;
    loop {
        let suffix = if number == 1 { extension.to_owned() } else { format!("-{number}{extension}") };
        let candidate = format!("{}{suffix}", truncate(stem, MAX_BYTES - suffix.len()));
        if !taken.contains(&candidate) {
            return candidate;
        }
        number += 1;
    }
}

fn is_unsafe(char: char) -> bool {
    matches!(char, '/' | '\\') || char.is_control()
}

/// Splits off a short extension, with its dot.
fn split_extension(name: &str) -> (&str, &str) {
    match name.rfind('.') {
        Some(dot) if dot > 0 && name.len() - dot <= MAX_EXTENSION_BYTES => name.split_at(dot),
        _ => (name, ""),
    }
}

/// Returns the longest prefix of `text` with at most `bytes` bytes.
fn truncate(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

#[cfg(test)]
mod tests {
    use std::{
        collections::HashSet,
        path::{Component, Path},
    };

    use proptest::{collection::vec, prelude::*};

    use super::{MAX_BYTES, input_name};

    fn input_names(names: &[&str]) -> Vec<String> {
        let mut taken = HashSet::new();
        let mut result = Vec::new();
        for name in names {
            let name = input_name(name, &taken);
            taken.insert(name.clone());
            result.push(name);
        }
        result
    }

    #[test]
    fn input_name_is_numbered_when_taken() {
        let names = input_names(&["reads.fastq", "reads.fastq", "reads.fastq", "README", "README", "Größe 1.txt"]);
        let expected = ["reads.fastq", "reads-2.fastq", "reads-3.fastq", "README", "README-2", "Größe 1.txt"];
        assert_eq!(names, expected);
    }

    #[test]
    fn input_name_replaces_unsafe_characters() {
        let cases = [
            ("../../etc/passwd", "_.._etc_passwd"),
            ("/etc/passwd", "_etc_passwd"),
            ("..", "file"),
            (".", "file"),
            ("", "file"),
            ("  ", "file"),
            (".bashrc", "bashrc"),
            (". .x", "x"),
            ("a\0b\nc", "a_b_c"),
            ("C:\\x", "C:_x"),
        ];
        for (name, expected) in cases {
            assert_eq!(input_name(name, &HashSet::new()), expected);
        }
    }

    #[test]
    fn input_name_keeps_extension_when_truncated() {
        let name = input_name(&format!("{}.csv", "ä".repeat(100)), &HashSet::new());
        assert!(name.len() <= MAX_BYTES && name.ends_with("ä.csv"), "{name}");
        let name = input_name(&format!("a.{}", "b".repeat(200)), &HashSet::new());
        assert_eq!(name.len(), MAX_BYTES);
    }

    fn any_name() -> impl Strategy<Value = String> {
        prop_oneof![any::<String>(), "[./\\\\ a\u{0}\n-]{0,6}", "[a-b.]{0,3}", ".{110,130}", "a{118,122}(\\.x{0,3})?",]
    }

    proptest! {
        #[test]
        fn input_names_are_unique_visible_path_components(names in vec(any_name(), 1..40)) {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let result = input_names(&names);
            for name in &result {
                let components: Vec<_> = Path::new(name).components().collect();
                prop_assert_eq!(components, [Component::Normal(name.as_ref())]);
                prop_assert!(name.len() <= MAX_BYTES && !name.starts_with('.'));
                prop_assert!(!name.chars().any(|char| char.is_control() || matches!(char, '/' | '\\')));
            }
            prop_assert_eq!(result.iter().collect::<HashSet<_>>().len(), names.len());
        }
    }
}

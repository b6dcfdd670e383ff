//! The names that input files have in a job's directory.
//!
//! The problem: a file's name comes from whoever uploaded it, and several files of a job may have the same.
//! The invariant: a name is one ordinary path component of at most [`MAX_BYTES`] bytes that shows in a listing, and no two
//! inputs of a job have the same.

use std::collections::HashSet;

/// The longest name, in bytes; file systems take 255.
pub(crate) const MAX_BYTES: usize = 120;

/// What follows the last dot is kept when a name is cut, up to so many bytes.
const MAX_EXTENSION_BYTES: usize = 16;

/// The name for a file that is called `name` by people, in a directory where `taken` are.
pub(crate) fn input_name(name: &str, taken: &HashSet<String>) -> String {
    let harmless: String = name.chars().map(|char| if is_harmful(char) { '_' } else { char }).collect();
    let visible = harmless.trim_start_matches(|char: char| char == '.' || char.is_whitespace()).trim_end();
    let visible = if visible.is_empty() { "file" } else { visible };
    let (stem, extension) = split(visible);
    let mut number = 1_usize;
    loop {
        let suffix = if number == 1 { extension.to_owned() } else { format!("-{number}{extension}") };
        let candidate = format!("{}{suffix}", cut(stem, MAX_BYTES - suffix.len()));
        if !taken.contains(&candidate) {
            return candidate;
        }
        number += 1;
    }
}

fn is_harmful(char: char) -> bool {
    matches!(char, '/' | '\\') || char.is_control()
}

/// The stem, and the extension with its dot where there is a short one.
fn split(name: &str) -> (&str, &str) {
    match name.rfind('.') {
        Some(dot) if dot > 0 && name.len() - dot <= MAX_EXTENSION_BYTES => name.split_at(dot),
        _ => (name, ""),
    }
}

/// The longest beginning of `text` that has at most `bytes` bytes.
fn cut(text: &str, bytes: usize) -> &str {
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

    fn named(names: &[&str]) -> Vec<String> {
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
    fn ordinary_names_stay_and_the_same_name_is_numbered() {
        let names = named(&["reads.fastq", "reads.fastq", "reads.fastq", "README", "README", "Größe 1.txt"]);
        let expected = ["reads.fastq", "reads-2.fastq", "reads-3.fastq", "README", "README-2", "Größe 1.txt"];
        assert_eq!(names, expected);
    }

    #[test]
    fn nasty_names_become_harmless() {
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
    fn a_long_name_keeps_its_extension() {
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
        fn each_is_one_visible_component_and_no_two_are_the_same(names in vec(any_name(), 1..40)) {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let result = named(&names);
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

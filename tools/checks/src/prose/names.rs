//! Names of tests, and docs that repeat a name.

use regex::Regex;

use super::line::Line;
use crate::error::CheckError;

const MAX_TEST_NAME: usize = 60;
const EMPTY_WORDS: [&str; 14] =
    ["the", "a", "an", "its", "of", "this", "that", "which", "why", "whose", "when", "how", "it", "is"];

pub(crate) struct Rules {
    test: Regex,
    doc: Regex,
    word: Regex,
}

impl Rules {
    pub(crate) fn new() -> Result<Self, CheckError> {
        Ok(Self {
            test: Regex::new(
                r"#\[(?:[a-z_]+::)?test[^\n]*\]\s*(?:(?:#\[[^\n]*\]|//[^\n]*)\s*)*(?:async\s+)?fn\s+(?<name>\w+)",
            )?,
            doc: Regex::new(r"^\s*///\s?(?<text>.*)$")?,
            word: Regex::new(r"[A-Za-z]+")?,
        })
    }

    /// Returns the line numbers and faults of a Rust source.
    pub(crate) fn faults(&self, source: &str) -> Vec<(usize, String)> {
        let mut faults = Vec::new();
        for name in self.test_names(source) {
            if name.text.len() > MAX_TEST_NAME {
                faults.push((name.number, format!("test name has {} characters: {}", name.text.len(), name.text)));
            }
        }
        let lines: Vec<_> = source.lines().collect();
        for (index, line) in lines.iter().enumerate() {
            let Some(text) = self.doc_text(line) else { continue };
            let alone = index == 0 || self.doc_text(lines[index - 1]).is_none();
            let last = lines.get(index + 1).is_none_or(|next| self.doc_text(next).is_none());
            if !(alone && last) {
                continue;
            }
            let code = lines[index + 1..].iter().find(|line| !line.trim_start().starts_with("#["));
            if code.is_some_and(|code| self.repeats(text, code)) {
                faults.push((index + 1, format!("doc repeats the name: {}", text.trim())));
            }
        }
        faults
    }

    pub(crate) fn test_names(&self, source: &str) -> Vec<Line> {
        let named = self.test.captures_iter(source).filter_map(|captures| captures.name("name"));
        let line = |name: regex::Match<'_>| Line {
            number: source[..name.start()].matches('\n').count() + 1,
            text: name.as_str().to_owned(),
        };
        named.map(line).collect()
    }

    fn doc_text<'a>(&self, line: &'a str) -> Option<&'a str> {
        self.doc.captures(line)?.name("text").map(|text| text.as_str())
    }

    fn repeats(&self, doc: &str, code: &str) -> bool {
        if doc.contains('`') {
            return false;
        }
        let words: Vec<_> = self.word.find_iter(doc).map(|word| word.as_str().to_lowercase()).collect();
        let name = code.split([':', '(', '{', '=', '<']).next().unwrap_or(code).to_lowercase();
        let in_name = |word: &String| {
            let stem = word.strip_suffix('s').unwrap_or(word);
            EMPTY_WORDS.contains(&word.as_str()) || name.contains(stem)
        };
        (1..=3).contains(&words.len()) && words.iter().all(in_name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults_of(source: &str) -> Vec<String> {
        Rules::new().unwrap().faults(source).into_iter().map(|(_, fault)| fault).collect()
    }

    #[test]
    fn test_name_is_reported_when_over_60_characters() {
        let long = format!("#[tokio::test]\nasync fn {}() {{}}", "a".repeat(61));
        assert_eq!(faults_of(&long).len(), 1);
        assert_eq!(faults_of("#[test]\nfn short() {}").len(), 0);
    }

    #[test]
    fn doc_is_reported_when_it_repeats_the_name() {
        assert_eq!(faults_of("/// The version.\npub version: u64,").len(), 1);
        assert_eq!(faults_of("/// Which.\npub id: u64,").len(), 1);
        assert_eq!(faults_of("/// Bytes per second.\npub rate: u64,").len(), 0);
        assert_eq!(faults_of("/// The version.\n/// It counts from 1.\npub version: u64,").len(), 0);
    }
}

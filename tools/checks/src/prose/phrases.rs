//! The list of riddling phrases, and how they are counted.

use regex::Regex;

use crate::error::CheckError;

const LIST: &str = include_str!("../../phrases.txt");

pub(crate) struct Phrases {
    listed: Regex,
    word: Regex,
    code: Regex,
}

impl Phrases {
    pub(crate) fn load() -> Result<Self, CheckError> {
        let expressions: Vec<_> = LIST.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
        Ok(Self {
            listed: Regex::new(&expressions.join("|"))?,
            word: Regex::new(r"[A-Za-z']+")?,
            code: Regex::new(r"`[^`]*`")?,
        })
    }

    fn without_code<'a>(&self, text: &'a str) -> std::borrow::Cow<'a, str> {
        self.code.replace_all(text, " ")
    }

    pub(crate) fn words(&self, text: &str) -> usize {
        self.word.find_iter(&self.without_code(text)).count()
    }

    pub(crate) fn count(&self, text: &str) -> usize {
        self.listed.find_iter(&self.without_code(text)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phrases_count_each_occurrence_outside_code() {
        let phrases = Phrases::load().unwrap();
        assert_eq!(phrases.count("What a command came to when nobody said so"), 4);
        assert_eq!(phrases.count("Returns `what` the caller asked for"), 0);
        assert_eq!(phrases.words("Returns `what` the caller's id"), 4);
    }
}

//! Comments, messages and test names of a Rust source.
//!
//! A small lexer, since parsers drop comments. It knows line and nested block comments, plain, raw and byte strings, and
//! tells character literals from lifetimes.

use regex::Regex;

use super::fences::unfenced;
use crate::prose::{line::Line, names};

/// String literals of fewer words are names and formats.
const MESSAGE_WORDS: usize = 4;

/// Returns comments and test names, and, outside of tests, messages in string literals.
pub(crate) fn prose(source: &str, is_test: bool) -> Vec<Line> {
    let Scan { comments, mut messages } = scan(source);
    // Messages of unit tests are not read by users.
    let unit_tests = source.find("#[cfg(test)]\nmod ").map_or(usize::MAX, |at| line_number(source, at));
    messages.retain(|message| !is_test && message.number < unit_tests && is_message(&message.text));
    let mut prose = unfenced(comments);
    prose.append(&mut messages);
    if let Ok(rules) = names::Rules::new() {
        prose.extend(
            rules
                .test_names(source)
                .into_iter()
                .map(|Line { number, text }| Line { number, text: text.replace('_', " ") }),
        );
    }
    prose
}

fn line_number(source: &str, at: usize) -> usize {
    source[..at].matches('\n').count() + 1
}

/// SQL is code, and so is a format without words.
fn is_message(text: &str) -> bool {
    let lower = text.trim_start().to_lowercase();
    let sql =
        ["select ", "insert ", "update ", "delete ", "with ", "create ", "alter ", "drop ", "lock ", "begin", "set "];
    let is_sql = sql.iter().any(|verb| lower.starts_with(verb))
        && Regex::new(r" (from|into|set|table|as|where|on|transaction|local) ")
            .is_ok_and(|words| words.is_match(&lower));
    let words =
        text.split_whitespace().filter(|word| word.chars().all(|c| c.is_alphabetic() || ".,:;'()-".contains(c)));
    !is_sql && words.count() >= MESSAGE_WORDS
}

struct Scan {
    comments: Vec<Line>,
    messages: Vec<Line>,
}

fn scan(source: &str) -> Scan {
    let bytes = source.as_bytes();
    let mut result = Scan { comments: Vec::new(), messages: Vec::new() };
    let mut at = 0;
    while at < bytes.len() {
        let rest = &source[at..];
        let end = if rest.starts_with("//") {
            let end = rest.find('\n').map_or(source.len(), |length| at + length);
            let text = source[at..end].trim_start_matches(['/', '!']);
            result.comments.push(Line { number: line_number(source, at), text: text.to_owned() });
            end
        } else if rest.starts_with("/*") {
            let end = block_comment_end(source, at);
            let first = line_number(source, at);
            for (offset, line) in source[at..end].lines().enumerate() {
                let text = line.trim().trim_matches(['/', '*', '!', ' ']).to_owned();
                result.comments.push(Line { number: first + offset, text });
            }
            end
        } else if let Some((open, hashes)) = raw_string(rest, at == 0 || !is_word(bytes[at - 1])) {
            let close = format!("\"{}", "#".repeat(hashes));
            let text_at = at + open;
            let length = source[text_at..].find(&close).unwrap_or(source.len() - text_at);
            result.messages.push(message(source, text_at, text_at + length));
            (text_at + length + close.len()).min(source.len())
        } else if rest.starts_with('"') {
            let end = string_end(bytes, at + 1);
            result.messages.push(message(source, at + 1, end));
            (end + 1).min(source.len())
        } else if rest.starts_with('\'') {
            at + character_length(rest)
        } else {
            at + rest.chars().next().map_or(1, char::len_utf8)
        };
        at = end;
    }
    result
}

fn message(source: &str, from: usize, to: usize) -> Line {
    // A backslash at a line's end continues the literal.
    let text = source[from..to].replace("\\\n", " ").replace("\\n", " ").replace("\\\"", "`");
    Line { number: line_number(source, from), text }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// The length of `r#"` with any number of hashes, and that number.
fn raw_string(rest: &str, begins_word: bool) -> Option<(usize, usize)> {
    let after = rest.strip_prefix("br").or(rest.strip_prefix('r')).filter(|_| begins_word)?;
    let prefix = rest.len() - after.len();
    let hashes = after.bytes().take_while(|byte| *byte == b'#').count();
    after[hashes..].starts_with('"').then_some((prefix + hashes + 1, hashes))
}

fn string_end(bytes: &[u8], mut at: usize) -> usize {
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    at.min(bytes.len())
}

fn block_comment_end(source: &str, at: usize) -> usize {
    let bytes = source.as_bytes();
    let (mut depth, mut end) = (0_usize, at);
    while end < bytes.len() {
        if source.is_char_boundary(end) && source[end..].starts_with("/*") {
            depth += 1;
            end += 2;
        } else if source.is_char_boundary(end) && source[end..].starts_with("*/") {
            depth -= 1;
            end += 2;
            if depth == 0 {
                return end;
            }
        } else {
            end += 1;
        }
    }
    source.len()
}

/// The length of a character literal; 1 for the apostrophe of a lifetime.
fn character_length(rest: &str) -> usize {
    let mut characters = rest.char_indices().skip(1);
    match characters.next() {
        Some((_, '\\')) => rest[2..].find('\'').map_or(1, |length| 2 + length + 1).max(4).min(rest.len()),
        Some((_, _)) => match characters.next() {
            Some((index, '\'')) => index + 1,
            _ => 1,
        },
        None => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(source: &str) -> Vec<String> {
        prose(source, false).into_iter().map(|line| line.text.trim().to_owned()).collect()
    }

    #[test]
    fn comments_are_found_after_code_and_in_blocks() {
        assert_eq!(texts("let a = 1; // one two\n/* three\n * four */"), ["one two", "three", "four"]);
    }

    #[test]
    fn markers_inside_literals_are_no_comments() {
        assert_eq!(texts("let a = \"// no\"; let b = r#\"/* no \" \"#; let c = '\"'; // yes"), ["yes"]);
    }

    #[test]
    fn lifetimes_do_not_open_a_literal() {
        assert_eq!(texts("fn a<'a>(x: &'a str) {} // yes\nlet q = '\\''; // too"), ["yes", "too"]);
    }

    #[test]
    fn messages_are_literals_of_four_words_and_no_sql() {
        let source =
            "let a = \"the job was not found\"; let b = \"select id from jobs where id = $1\"; let c = \"short one\";";
        assert_eq!(texts(source), ["the job was not found"]);
    }

    #[test]
    fn messages_of_unit_tests_do_not_count() {
        assert_eq!(texts("#[cfg(test)]\nmod tests {\n let a = \"the job was not found\";\n}"), Vec::<String>::new());
    }

    #[test]
    fn test_names_count_as_words() {
        assert_eq!(texts("#[test]\nfn job_ends_once() {}"), ["job ends once"]);
    }
}

//! Prose out of sources: comments, messages, and running text.

mod fences;
mod rust;

use serde_json::Value;

use self::fences::unfenced;
use super::line::Line;

/// A kind of file that holds prose.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Rust,
    Sql,
    Markdown,
    Shell,
    Web,
    Svelte,
    OpenApi,
    Plain,
}

impl Kind {
    /// Returns the kind of the file at `path`; `None` if it holds no prose of ours.
    pub(crate) fn of(path: &str) -> Option<Self> {
        let name = path.rsplit('/').next().unwrap_or(path);
        let released = path.split('/').any(|part| part == "migrations" || part == "bus-migrations");
        match name.rsplit_once('.') {
            Some((_, "rs")) => Some(Self::Rust),
            Some((_, "sql")) if !released => Some(Self::Sql),
            Some((_, "md")) => Some(Self::Markdown),
            Some((_, "sh" | "yml" | "yaml" | "toml")) => Some(Self::Shell),
            Some((_, "ts" | "js" | "mjs" | "css")) => Some(Self::Web),
            Some((_, "svelte" | "html")) => Some(Self::Svelte),
            Some((_, "txt")) if name == "help.txt" => Some(Self::Plain),
            Some((_, "json")) if name.starts_with("openapi") => Some(Self::OpenApi),
            None if name == "dev" || name == "Dockerfile" => Some(Self::Shell),
            _ => None,
        }
    }

    pub(crate) fn prose(self, path: &str, source: &str) -> Vec<Line> {
        match self {
            Self::Rust => rust::prose(source, is_test(path)),
            Self::Sql => unfenced(after_marker(source, "--")),
            Self::Markdown => unfenced(numbered(source).collect()),
            Self::Shell => unfenced(after_marker(source, "#")),
            Self::Web => web_comments(source),
            Self::Svelte => svelte(source),
            Self::OpenApi => descriptions(source),
            Self::Plain => numbered(source).collect(),
        }
    }
}

fn is_test(path: &str) -> bool {
    path.split('/').any(|part| part == "tests" || part == "benches" || part == "tests.rs")
}

fn numbered(source: &str) -> impl Iterator<Item = Line> {
    source.lines().enumerate().map(|(index, text)| Line { number: index + 1, text: text.to_owned() })
}

/// Comments that begin with `marker`, alone on their line or after code.
fn after_marker(source: &str, marker: &str) -> Vec<Line> {
    let comment = |Line { number, text }: Line| {
        let trimmed = text.trim_start();
        let comment = match trimmed.strip_prefix(marker) {
            Some(comment) => Some(comment),
            None => trimmed.split_once(&format!(" {marker} ")).map(|(_, comment)| comment),
        };
        comment.map(|comment| Line { number, text: comment.to_owned() })
    };
    numbered(source).filter_map(comment).collect()
}

/// `//` and `/* */` comments, and string literals of at least four words, which are copy.
fn web_comments(source: &str) -> Vec<Line> {
    let mut block = false;
    let mut prose = Vec::new();
    for Line { number, text } in numbered(source) {
        let trimmed = text.trim();
        block |= trimmed.starts_with("/*");
        if block || trimmed.starts_with("//") {
            prose.push(Line { number, text: trimmed.trim_matches(['/', '*', ' ']).to_owned() });
        } else {
            let literals = trimmed.split(['"', '\'', '`']).skip(1).step_by(2);
            let copy = literals.filter(|literal| literal.split_whitespace().count() >= 4);
            prose.extend(copy.map(|copy| Line { number, text: copy.to_owned() }));
        }
        block &= !trimmed.ends_with("*/");
    }
    prose
}

/// The script's and style's comments, and the text between tags.
fn svelte(source: &str) -> Vec<Line> {
    let mut code = false;
    let mut prose = Vec::new();
    let mut markup = String::new();
    let mut script = String::new();
    // Both halves keep all line breaks, so that line numbers stay right.
    for line in source.lines() {
        let trimmed = line.trim_start();
        code |= trimmed.starts_with("<script") || trimmed.starts_with("<style");
        let (here, there) = if code { (&mut script, &mut markup) } else { (&mut markup, &mut script) };
        here.push_str(line);
        here.push('\n');
        there.push('\n');
        code &= !(trimmed.contains("</script>") || trimmed.contains("</style>"));
    }
    prose.extend(web_comments(&script));
    for Line { number, text } in numbered(&markup) {
        let mut tag = 0_usize;
        let mut copy = String::new();
        for character in text.chars() {
            match character {
                '<' | '{' => tag += 1,
                '>' | '}' => tag = tag.saturating_sub(1),
                _ if tag == 0 => copy.push(character),
                _ => {}
            }
        }
        if !copy.trim().is_empty() {
            prose.push(Line { number, text: copy });
        }
    }
    prose
}

/// Titles, summaries and descriptions of an OpenAPI document; the line number is that of the first place with this text.
fn descriptions(source: &str) -> Vec<Line> {
    let mut prose = Vec::new();
    if let Ok(document) = serde_json::from_str::<Value>(source) {
        collect_descriptions(&document, &mut prose);
    }
    prose
}

fn collect_descriptions(value: &Value, prose: &mut Vec<Line>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                match member {
                    Value::String(text) if matches!(name.as_str(), "title" | "summary" | "description") => {
                        prose.push(Line { number: 1, text: text.clone() });
                    }
                    _ => collect_descriptions(member, prose),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect_descriptions(item, prose)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(path: &str, source: &str) -> Vec<String> {
        let lines = Kind::of(path).unwrap().prose(path, source);
        lines.into_iter().map(|line| line.text.trim().to_owned()).filter(|text| !text.is_empty()).collect()
    }

    #[test]
    fn released_migrations_are_exempt() {
        assert!(Kind::of("services/job/migrations/1000_jobs.sql").is_none());
        assert!(Kind::of("services/job/src/jobs.sql").is_some());
    }

    #[test]
    fn markdown_drops_fenced_code() {
        assert_eq!(texts("README.md", "Text\n```sh\nwhat\n```\nMore"), ["Text", "More"]);
    }

    #[test]
    fn svelte_gives_copy_and_comments() {
        let source = "<script lang=\"ts\">\n// Loads a page.\n</script>\n<p class=\"a\">All {count} jobs</p>\n";
        assert_eq!(texts("Jobs.svelte", source), ["Loads a page.", "All  jobs"]);
    }

    #[test]
    fn openapi_gives_descriptions() {
        let source = r#"{"paths": {"/jobs": {"get": {"summary": "Lists jobs", "operationId": "list_jobs"}}}}"#;
        assert_eq!(texts("openapi.json", source), ["Lists jobs"]);
    }
}

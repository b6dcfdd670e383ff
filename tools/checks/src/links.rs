//! Links of Markdown files: relative targets exist, and a link to a Rust file names a function of it.

use std::path::Path;

use regex::Regex;

use crate::{error::CheckError, git};

/// A link outside of code.
struct Link {
    line: usize,
    text: String,
    target: String,
}

/// Prints the broken links and returns whether there are none.
pub(crate) fn check(root: &Path) -> Result<bool, CheckError> {
    let syntax = Syntax::new()?;
    let (mut checked, mut broken) = (0, 0);
    for path in git::files(root)?.iter().filter(|path| path.ends_with(".md")) {
        for Link { line, text, target } in syntax.links(&git::read(root, path)?) {
            checked += 1;
            if let Some(fault) = syntax.fault(root, path, &text, &target)? {
                broken += 1;
                println!("links: {path}:{line}: [{text}]({target}) {fault}");
            }
        }
    }
    println!("links: {checked} checked, {broken} broken");
    Ok(broken == 0)
}

struct Syntax {
    link: Regex,
    code: Regex,
    function: Regex,
}

impl Syntax {
    fn new() -> Result<Self, CheckError> {
        Ok(Self {
            link: Regex::new(r"\[(?<text>[^\]]+)\]\((?<target>[^)\s]+)\)")?,
            code: Regex::new(r"``[^`]*``")?,
            function: Regex::new(r"^[a-z0-9]+(_[a-z0-9]+)+$")?,
        })
    }

    /// Returns the links into the repository.
    fn links(&self, page: &str) -> Vec<Link> {
        let mut links = Vec::new();
        let mut fenced = false;
        for (index, line) in page.lines().enumerate() {
            if line.trim_start().starts_with("```") {
                fenced = !fenced;
            }
            if fenced {
                continue;
            }
            let line = self.code.replace_all(line, "");
            for captures in self.link.captures_iter(&line) {
                let target = captures["target"].to_owned();
                if !target.contains("://") && !target.starts_with("mailto:") {
                    links.push(Link { line: index + 1, text: captures["text"].to_owned(), target });
                }
            }
        }
        links
    }

    fn fault(&self, root: &Path, page: &str, text: &str, target: &str) -> Result<Option<String>, CheckError> {
        let (file, heading) = target.split_once('#').unwrap_or((target, ""));
        let directory = Path::new(page).parent().unwrap_or(Path::new(""));
        let path = if file.is_empty() { page.to_owned() } else { directory.join(file).to_string_lossy().into_owned() };
        if !root.join(&path).exists() {
            return Ok(Some("does not exist".to_owned()));
        }
        if !heading.is_empty() && path.ends_with(".md") {
            let source = git::read(root, &path)?;
            let found = source.lines().any(|line| line.starts_with('#') && anchor(line) == heading);
            return Ok((!found).then(|| format!("has no heading {heading}")));
        }
        if path.ends_with(".rs") && self.function.is_match(text) {
            let found = git::read(root, &path)?.contains(&format!("fn {text}("));
            return Ok((!found).then(|| format!("has no function {text}")));
        }
        Ok(None)
    }
}

/// Returns the anchor that Markdown renderers give to a heading.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_')).collect::<String>().replace(' ', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_in_code_and_to_other_sites_are_left_out() {
        let page = "[a](b.md)\n```\n[c](d.md)\n```\n[e](https://example.com)\n``[f](g.md)``\n";
        let links = Syntax::new().unwrap().links(page);
        assert_eq!(links.iter().map(|link| link.target.as_str()).collect::<Vec<_>>(), ["b.md"]);
    }

    #[test]
    fn anchor_drops_punctuation() {
        assert_eq!(anchor("## Budgets, and totals"), "budgets-and-totals");
    }
}

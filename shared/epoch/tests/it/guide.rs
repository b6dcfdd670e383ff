//! Checks of the guide in `docs/epoch`: its links and named tests exist, and its code is compiled.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Returns the root of the repository.
fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Returns the name and the text of each page of the guide.
fn pages() -> Vec<(String, String)> {
    let mut pages = Vec::new();
    for entry in fs::read_dir(repository().join("docs/epoch")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        pages.push((name, fs::read_to_string(path).unwrap()));
    }
    assert!(pages.len() > 9, "{} pages", pages.len());
    pages
}

/// Returns text and target of each link outside of code blocks that points into the repository.
fn links(page: &str) -> Vec<(&str, &str)> {
    let mut links = Vec::new();
    for prose in page.split("```").step_by(2) {
        for pair in prose.split("](").collect::<Vec<_>>().windows(2) {
            let text = pair[0].rsplit_once('[').map(|(_, text)| text);
            let target = pair[1].split_once(')').map(|(target, _)| target);
            if let (Some(text), Some(target)) = (text, target)
                && !target.starts_with("http")
            {
                links.push((text, target));
            }
        }
    }
    links
}

/// Returns the anchor of a heading.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-')).collect::<String>().replace(' ', "-")
}

#[test]
fn every_link_has_a_target() {
    for (name, page) in pages() {
        for (_, target) in links(&page) {
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let path = repository().join("docs/epoch").join(if file.is_empty() { &name } else { file });
            assert!(path.exists(), "{name} links to {target}");
            if !heading.is_empty() {
                let page = fs::read_to_string(path).unwrap();
                let found = page.lines().any(|line| line.starts_with('#') && anchor(line) == heading);
                assert!(found, "{name} links to {target}");
            }
        }
    }
}

#[test]
fn every_invariant_names_existing_tests() {
    let invariants = fs::read_to_string(repository().join("docs/epoch/invariants.md")).unwrap();
    let rows: Vec<&str> = invariants.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert!(rows.len() > 20, "{} rows", rows.len());
    for row in rows {
        let tests = links(row);
        assert!(!tests.is_empty(), "no test: {row}");
        for (test, file) in tests {
            let source = fs::read_to_string(repository().join("docs/epoch").join(file)).unwrap();
            assert!(source.contains(&format!("fn {test}(")), "{file} has no {test}");
        }
    }
}

/// A page with code must be included in the doctests of a crate.
#[test]
fn every_page_with_code_is_compiled() {
    let libraries: Vec<String> = ["epoch", "epoch-postgres", "epoch-kafka"]
        .map(|name| fs::read_to_string(repository().join(format!("shared/{name}/src/lib.rs"))).unwrap())
        .into();
    let mut blocks = 0;
    for (name, page) in pages() {
        let code = page.matches("```rust").count();
        assert_eq!(page.matches("```rust,ignore").count() + page.matches("```rust,compile_fail").count(), 0, "{name}");
        let included = libraries.iter().any(|library| library.contains(&format!("docs/epoch/{name}\")]")));
        assert_eq!(included, code > 0, "{name} has {code} blocks of Rust");
        blocks += code;
    }
    assert!(blocks > 10, "{blocks} blocks");
}

//! Prose: riddling phrases per 1,000 words, names of tests, and docs that repeat a name.
//!
//! Checked text: comments of Rust, SQL, shell and web sources, messages in Rust string literals, Markdown, help texts,
//! descriptions of the OpenAPI document, and the names of tests. Quoted code (fences and backticks) does not count, nor do
//! released migrations: their checksums are stored in databases, so that they never change.

mod extract;
mod line;
mod names;
mod phrases;

use std::{collections::BTreeMap, path::Path};

use self::{line::Line, phrases::Phrases};
use crate::{crates::Packages, error::CheckError, git};

/// Riddling phrases per 10,000 words over the whole repository.
const LIMIT: usize = 50;
/// The same in a package of more than [`LARGE`] words.
const PACKAGE_LIMIT: usize = 80;
const LARGE: usize = 2_000;
const LINES_SHOWN: usize = 25;
const NAMES_SHOWN: usize = 25;

#[derive(Default, Clone, Copy)]
struct Count {
    words: usize,
    phrases: usize,
}

impl Count {
    /// Phrases per 10,000 words.
    fn rate(self) -> usize {
        self.phrases * 10_000 / self.words.max(1)
    }

    fn add(&mut self, other: Self) {
        self.words += other.words;
        self.phrases += other.phrases;
    }
}

/// Prints each package's rate and the worst lines, and returns whether all limits hold.
pub(crate) fn check(root: &Path) -> Result<bool, CheckError> {
    let phrases = Phrases::load()?;
    let names = names::Rules::new()?;
    let files = git::files(root)?;
    let packages = Packages::of(&files);
    let mut counts: BTreeMap<&str, Count> = BTreeMap::new();
    let mut worst = Vec::new();
    let mut faults = Vec::new();
    for path in &files {
        let Some(kind) = extract::Kind::of(path) else { continue };
        let source = git::read(root, path)?;
        for Line { number, text } in kind.prose(path, &source) {
            let count = Count { words: phrases.words(&text), phrases: phrases.count(&text) };
            counts.entry(packages.holding(path)).or_default().add(count);
            if count.phrases > 0 {
                worst.push((count.phrases, format!("{path}:{number}: {}", text.trim())));
            }
        }
        if path.ends_with(".rs") {
            faults.extend(names.faults(&source).into_iter().map(|(line, fault)| format!("{path}:{line}: {fault}")));
        }
    }
    Ok(report(&counts, worst, &faults))
}

fn report(counts: &BTreeMap<&str, Count>, mut worst: Vec<(usize, String)>, faults: &[String]) -> bool {
    let mut all = Count::default();
    let mut passed = faults.is_empty();
    for (package, count) in counts {
        all.add(*count);
        let over = count.words > LARGE && count.rate() > PACKAGE_LIMIT;
        passed &= !over;
        let mark = if over { "  over 8.0" } else { "" };
        println!("prose: {} {package} ({} in {} words){mark}", decimal(count.rate()), count.phrases, count.words);
    }
    passed &= all.rate() <= LIMIT;
    println!("prose: {} in all, limit {}", decimal(all.rate()), decimal(LIMIT));
    worst.sort_by_key(|(phrases, _)| std::cmp::Reverse(*phrases));
    for (phrases, line) in worst.iter().take(LINES_SHOWN) {
        println!("prose: {phrases} in {line}");
    }
    for fault in faults.iter().take(NAMES_SHOWN) {
        println!("prose: {fault}");
    }
    println!("prose: {} names and docs against the rules", faults.len());
    passed
}

fn decimal(per_ten_thousand: usize) -> String {
    format!("{:>3}.{}", per_ten_thousand / 10, per_ten_thousand % 10)
}

//! Commit subjects: `area: imperative summary`, at most 72 characters.

use std::path::Path;

use regex::Regex;

use crate::{error::CheckError, git};

/// The last commit before the rule. Older subjects are not checked.
const RULE_BEGINS_AFTER: &str = "029c27793668b66ec68203c0ba705c1418550bb3";
const MAX_SUBJECT: usize = 72;
/// Verbs that end like a participle and are none.
const IMPERATIVES: [&str; 8] = ["bring", "embed", "exceed", "feed", "need", "proceed", "seed", "speed"];

/// Prints the subjects that break the rule and returns whether there are none.
pub(crate) fn check(root: &Path) -> Result<bool, CheckError> {
    let Some(commits) = git::commits_since(root, RULE_BEGINS_AFTER)? else {
        println!("commits: skipped, the clone is too shallow to have {RULE_BEGINS_AFTER}");
        return Ok(true);
    };
    let form = Regex::new(r"^[a-z0-9][a-z0-9 ,/_.-]*: (?<verb>[a-z]+)")?;
    let mut findings = 0;
    for commit in &commits {
        if let Some(fault) = fault(&form, &commit.subject) {
            println!("commits: {} {}: {}", commit.id, fault, commit.subject);
            findings += 1;
        }
    }
    println!("commits: {} checked, {findings} against the rule", commits.len());
    Ok(findings == 0)
}

fn fault(form: &Regex, subject: &str) -> Option<&'static str> {
    if subject.chars().count() > MAX_SUBJECT {
        return Some("is over 72 characters");
    }
    if subject.contains(';') {
        return Some("has a semicolon");
    }
    if subject.ends_with('.') {
        return Some("ends with a period");
    }
    let Some(captures) = form.captures(subject) else { return Some("is not `area: imperative summary`") };
    let verb = &captures["verb"];
    let participle = verb.ends_with("ed") || verb.ends_with("ing");
    (participle && !IMPERATIVES.contains(&verb)).then_some("does not begin with an imperative")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault_of(subject: &str) -> Option<&'static str> {
        fault(&Regex::new(r"^[a-z0-9][a-z0-9 ,/_.-]*: (?<verb>[a-z]+)").unwrap(), subject)
    }

    #[test]
    fn subject_passes_when_it_has_area_and_imperative() {
        assert_eq!(fault_of("billing: rename price overrides"), None);
        assert_eq!(fault_of("epoch-kafka/consumer: seed offsets once"), None);
    }

    #[test]
    fn subject_fails_without_area() {
        assert!(fault_of("Formatted").is_some());
        assert!(fault_of("What lists read is told as it is").is_some());
    }

    #[test]
    fn subject_fails_when_too_long_or_two_sentences() {
        assert!(fault_of(&format!("area: add {}", "x".repeat(70))).is_some());
        assert!(fault_of("area: add one; remove another").is_some());
        assert!(fault_of("area: add one.").is_some());
    }

    #[test]
    fn subject_fails_with_a_participle() {
        assert!(fault_of("area: renamed types").is_some());
        assert!(fault_of("area: adding types").is_some());
    }
}

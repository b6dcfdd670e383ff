use std::collections::{BTreeMap, BTreeSet};

use epoch::Timestamp;
use proptest::{collection::vec, prelude::*};

use super::{FileSpanUsage, cumulative_share, shares};
use crate::{
    calendar::span::Span,
    sharing::{
        file_change::{Change, FileChange},
        rule::{SharingRule, SharingRules},
    },
};

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn change(millis: i64, change: Change<u8>) -> FileChange<u8> {
    FileChange { at: at(millis), change }
}

/// Jobs 0 and 1 belong to one user, 2 and 3 to another, and so on.
fn user(job: &u8) -> u8 {
    job / 2
}

type Whole = (FileSpanUsage, Vec<(u8, i128)>);

fn whole(changes: &[FileChange<u8>], span: Span, rules: &SharingRules) -> Whole {
    shares(changes, &[span], rules, user).total()
}

/// Rules by the instants they apply from, in order; the last one of an instant counts.
fn rules(changes: &[(i64, SharingRule)]) -> SharingRules {
    changes.iter().map(|(from, rule)| (at(*from), *rule)).collect()
}

/// The rule of the module documentation, literally: maximal segments, and the share of each linked job
/// millisecond by millisecond.
fn shares_by_millisecond(changes: &[FileChange<u8>], span: Span, rules: &[(i64, SharingRule)]) -> Whole {
    let mut segments: Vec<(i64, i64, BTreeSet<u8>)> = Vec::new();
    let (mut level, mut jobs) = (0_i64, BTreeSet::new());
    for change in changes {
        match &change.change {
            Change::Level(delta) => level += delta,
            Change::Link(job) => drop(jobs.insert(*job)),
            Change::Unlink(job) => drop(jobs.remove(job)),
        }
        let start = change.at.as_millis();
        while segments.last().is_some_and(|(other, ..)| *other == start) {
            segments.pop();
        }
        if segments.last().is_none_or(|(_, before, linked)| (*before, linked) != (level, &jobs)) {
            segments.push((start, level, jobs.clone()));
        }
    }
    let mut of_jobs: BTreeMap<u8, i128> = BTreeMap::new();
    let (mut byte_ms, mut unattributed_byte_ms, mut stored, mut negative) = (0, 0, false, false);
    for (index, (start, level, jobs)) in segments.iter().enumerate() {
        let end = segments.get(index + 1).map_or(i64::MAX / 2, |(start, ..)| *start);
        let within = Span::new(at(*start), at(end)).intersect(span);
        if within.is_empty() || *level == 0 {
            continue;
        }
        (stored, negative) = (true, negative || *level < 0);
        let users: BTreeSet<_> = jobs.iter().map(user).collect();
        for millisecond in within.start().as_millis()..within.end().as_millis() {
            let area = |until: i64| i128::from(*level) * i128::from(until - start);
            let (before, after) = (area(millisecond), area(millisecond + 1));
            byte_ms += after - before;
            let rule =
                rules.iter().rev().find(|(from, _)| *from <= millisecond).map_or(SharingRule::Split, |(_, rule)| *rule);
            if jobs.is_empty() || (rule == SharingRule::UnsharedOnly && users.len() > 1) {
                unattributed_byte_ms += after - before;
                continue;
            }
            for (rank, job) in jobs.iter().enumerate() {
                let share = |area| cumulative_share(area, jobs.len() as u32, rank as u32);
                *of_jobs.entry(*job).or_insert(0) += share(after) - share(before);
            }
        }
    }
    (FileSpanUsage { byte_ms, unattributed_byte_ms, stored, negative }, of_jobs.into_iter().collect())
}

#[test]
fn link_may_precede_and_outlive_the_file() {
    let changes = [
        change(0, Change::Link(1)),
        change(10, Change::Level(7)),
        change(20, Change::Level(-7)),
        change(30, Change::Level(5)),
        change(35, Change::Unlink(2)),
        change(40, Change::Unlink(1)),
    ];
    let file = FileSpanUsage { byte_ms: 70 + 100, unattributed_byte_ms: 50, stored: true, negative: false };
    assert_eq!(whole(&changes, Span::new(at(0), at(50)), &SharingRule::Split.into()), (file, vec![(1, 120)]));
}

#[test]
fn repeated_link_and_one_instant_start_no_segment() {
    let changes = [
        change(0, Change::Level(1)),
        change(0, Change::Link(1)),
        change(0, Change::Link(2)),
        // None of these starts a new segment, in which job 1 would get the extra byte-millisecond again.
        change(1, Change::Unlink(1)),
        change(1, Change::Link(2)),
        change(1, Change::Link(1)),
        change(1, Change::Level(-1)),
        change(1, Change::Level(1)),
        change(2, Change::Unlink(2)),
        change(2, Change::Unlink(1)),
    ];
    let (_, jobs) = whole(&changes, Span::new(at(0), at(3)), &SharingRule::Split.into());
    assert_eq!(jobs, [(1, 1), (2, 1)]);
}

#[test]
fn file_shared_by_users_may_be_unattributed() {
    let changes = [
        change(0, Change::Level(1)),
        change(0, Change::Link(0)),
        change(10, Change::Link(1)),
        change(20, Change::Link(2)),
    ];
    let month = Span::new(at(0), at(30));
    let (file, jobs) = whole(&changes, month, &SharingRule::UnsharedOnly.into());
    assert_eq!((file.unattributed_byte_ms, jobs), (10, vec![(0, 15), (1, 5)]));
    // The rule changes in the middle of a segment.
    let (file, jobs) = whole(&changes, month, &rules(&[(26, SharingRule::UnsharedOnly)]));
    assert_eq!((file.unattributed_byte_ms, jobs), (4, vec![(0, 17), (1, 7), (2, 2)]));
    let (file, jobs) = whole(&changes, month, &rules(&[(0, SharingRule::UnsharedOnly), (26, SharingRule::Split)]));
    assert_eq!((file.unattributed_byte_ms, jobs), (6, vec![(0, 17), (1, 6), (2, 1)]));
}

fn any_changes() -> impl Strategy<Value = Vec<FileChange<u8>>> {
    let level = prop_oneof![0..20_i64, -20..20_i64, any::<i64>()].prop_map(Change::Level);
    let job = 0..9_u8;
    let any = prop_oneof![level, job.clone().prop_map(Change::Link), job.prop_map(Change::Unlink)];
    vec((0..60_i64, any), 0..40).prop_map(|mut changes| {
        changes.sort_by_key(|(at, _)| *at);
        // The level itself stays within the range of a size.
        let mut level = 0_i64;
        for (_, change) in &mut changes {
            if let Change::Level(delta) = change {
                *delta = delta.checked_add(level).map_or(1, |_| *delta);
                level += *delta;
            }
        }
        changes.into_iter().map(|(millis, any)| change(millis, any)).collect()
    })
}

/// Up to three changes of the rule, often none within the changes of the file.
fn any_rules() -> impl Strategy<Value = Vec<(i64, SharingRule)>> {
    let rule = prop_oneof![Just(SharingRule::Split), Just(SharingRule::UnsharedOnly)];
    vec((prop_oneof![Just(-10), -5..60_i64], rule), 0..4).prop_map(|mut rules| {
        rules.sort_by_key(|(from, _)| *from);
        rules
    })
}

proptest! {
    #[test]
    fn shares_match_the_literal_rule(
        changes in any_changes(), start in -5..40_i64, length in 0..50_i64, of_terms in any_rules(),
    ) {
        let span = Span::new(at(start), at(start + length));
        let (file, jobs) = whole(&changes, span, &rules(&of_terms));
        prop_assert_eq!((file, jobs.clone()), shares_by_millisecond(&changes, span, &of_terms));
        let of_jobs: i128 = jobs.iter().map(|(_, share)| share).sum();
        prop_assert_eq!(of_jobs + file.unattributed_byte_ms, file.byte_ms);
    }

    /// Each span equals a separate computation, so days sum to the total of every job.
    #[test]
    fn each_span_matches_a_separate_computation(
        changes in any_changes(), cuts in vec(-5..80_i64, 2..8), of_terms in any_rules(),
    ) {
        let mut cuts = cuts;
        cuts.sort_unstable();
        let spans: Vec<_> = cuts.windows(2).map(|ends| Span::new(at(ends[0]), at(ends[1]))).collect();
        let result = shares(&changes, &spans, &rules(&of_terms), user);
        for (index, span) in spans.iter().enumerate() {
            let (file, jobs) = shares_by_millisecond(&changes, *span, &of_terms);
            prop_assert_eq!(result.spans[index], file);
            let of_jobs: BTreeMap<u8, i128> = jobs.into_iter().collect();
            for (job, shares) in &result.jobs {
                prop_assert_eq!(shares[index], of_jobs.get(job).copied().unwrap_or(0), "job {}", job);
            }
            for job in of_jobs.keys() {
                prop_assert!(result.jobs.iter().any(|(result, _)| result == job), "job {}", job);
            }
        }
        let over_all = Span::new(at(cuts[0]), at(*cuts.last().unwrap()));
        prop_assert_eq!(result.total(), shares_by_millisecond(&changes, over_all, &of_terms));
    }
}

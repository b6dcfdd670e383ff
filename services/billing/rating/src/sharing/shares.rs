//! The shares of jobs in a file, over contiguous spans.

use epoch::Timestamp;

use crate::{
    calendar::span::Span,
    sharing::{
        file_change::{Change, FileChange},
        rule::{SharingRule, SharingRules},
        tree::Tree,
    },
};

/// The storage of a file and the shares of its jobs, over contiguous spans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shares<J> {
    /// The storage of the file in each span.
    pub spans: Vec<FileSpanUsage>,
    /// Jobs that used the file while it was not empty, by id, with their shares in each span.
    pub jobs: Vec<(J, Vec<i128>)>,
}

impl<J> Shares<J> {
    /// Sums up all spans.
    #[must_use]
    pub fn total(self) -> (FileSpanUsage, Vec<(J, i128)>) {
        let file = self.spans.into_iter().fold(FileSpanUsage::default(), |sum, span| FileSpanUsage {
            byte_ms: sum.byte_ms + span.byte_ms,
            unattributed_byte_ms: sum.unattributed_byte_ms + span.unattributed_byte_ms,
            stored: sum.stored || span.stored,
            negative: sum.negative || span.negative,
        });
        (file, self.jobs.into_iter().map(|(job, shares)| (job, shares.into_iter().sum())).collect())
    }
}

/// The storage of a file in a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FileSpanUsage {
    /// Stored byte-milliseconds.
    pub byte_ms: i128,
    /// The part of it that is attributed to no job.
    pub unattributed_byte_ms: i128,
    /// Whether the file was not empty at some time.
    pub stored: bool,
    /// Whether the level was negative at some time.
    pub negative: bool,
}

/// Returns the cumulative share of a job in an area: `⌊(area + k − 1 − rank) / k⌋` for k = `jobs`.
#[must_use]
pub fn cumulative_share(area: i128, jobs: u32, rank: u32) -> i128 {
    let (jobs, rank) = (i128::from(jobs.max(1)), i128::from(rank));
    (area + jobs - 1 - rank).div_euclid(jobs)
}

/// Computes the shares over contiguous spans. Changes come in the order in which they apply; `user` returns
/// the user of a job.
pub fn shares<J: Ord + Clone, U: Ord>(
    changes: &[FileChange<J>],
    spans: &[Span],
    rules: &SharingRules,
    user: impl Fn(&J) -> U,
) -> Shares<J> {
    let mut file = FileState::new(changes, spans.len(), user);
    let mut coming = changes.chunk_by(|left, right| left.at == right.at).peekable();
    let mut rules = rules.0.iter().peekable();
    for span in spans {
        let mut reached = span.start();
        loop {
            while let Some(instant) = coming.next_if(|instant| instant.first().is_some_and(|first| first.at <= reached))
            {
                file.apply(instant);
            }
            while let Some((_, rule)) = rules.next_if(|(from, _)| *from <= reached) {
                file.rule = *rule;
            }
            let change = coming.peek().and_then(|instant| instant.first()).map_or(span.end(), |first| first.at);
            let rule = rules.peek().map_or(span.end(), |(from, _)| *from);
            let until = span.end().min(change).min(rule);
            file.pass(reached, until);
            reached = until;
            if reached >= span.end() {
                break;
            }
        }
        file.end_span();
    }
    file.finish()
}

/// The state of a job that is linked at some time. Jobs are indexed by rank of their id.
struct JobState {
    linked: bool,
    /// The sum of q, and the extra ones of this job, when it was settled last.
    since: (i128, i128),
    /// The number of shared intervals when the job was settled last.
    since_shared: u64,
    /// The share of the job in each span.
    shares: Vec<i128>,
    shared: bool,
}

struct FileState<J> {
    /// The sharing rule that applies now.
    rule: SharingRule,
    jobs: Vec<J>,
    places: Vec<JobState>,
    /// 1 for each linked job, by index.
    linked: Tree,
    linked_count: i128,
    /// The user of each job, represented by the index of the user's first job.
    user_of: Vec<usize>,
    /// The number of linked jobs of each user, by the index that represents the user, and the number of users
    /// with a linked job.
    jobs_of_user: Vec<usize>,
    users: usize,
    level: i128,
    segment_start: Timestamp,
    /// The sum of q of every linked job.
    together: i128,
    /// Extra ones, noted at the last index that gets them.
    more: Tree,
    more_count: i128,
    shared: u64,
    /// The number of shared intervals when the current span started.
    shared_before: u64,
    present: FileSpanUsage,
    spans: Vec<FileSpanUsage>,
}

impl<J: Ord + Clone> FileState<J> {
    fn new<U: Ord>(changes: &[FileChange<J>], spans: usize, user: impl Fn(&J) -> U) -> Self {
        let mut jobs = Vec::new();
        for change in changes {
            if let Change::Link(job) = &change.change {
                jobs.push(job.clone());
            }
        }
        jobs.sort_unstable();
        jobs.dedup();
        let count = jobs.len();
        let mut by_user: Vec<_> = jobs.iter().map(user).zip(0..count).collect();
        by_user.sort_unstable();
        let mut user_of = vec![0; count];
        for of_user in by_user.chunk_by(|(left, _), (right, _)| left == right) {
            for (_, place) in of_user {
                if let (Some(user), Some((_, first))) = (user_of.get_mut(*place), of_user.first()) {
                    *user = *first;
                }
            }
        }
        let place =
            |_| JobState { linked: false, since: (0, 0), since_shared: 0, shares: vec![0; spans], shared: false };
        Self {
            rule: SharingRule::Split,
            jobs,
            places: (0..count).map(place).collect(),
            linked: Tree::new(count),
            linked_count: 0,
            user_of,
            jobs_of_user: vec![0; count],
            users: 0,
            level: 0,
            segment_start: Timestamp::from_millis(0),
            together: 0,
            more: Tree::new(count),
            more_count: 0,
            shared: 0,
            shared_before: 0,
            present: FileSpanUsage::default(),
            spans: Vec::with_capacity(spans),
        }
    }

    /// Applies the changes of one instant, which are one change.
    fn apply(&mut self, instant: &[FileChange<J>]) {
        let level_before = self.level;
        let mut touched = Vec::new();
        for change in instant {
            match &change.change {
                Change::Level(delta) => self.level += i128::from(*delta),
                Change::Link(job) | Change::Unlink(job) => {
                    // A job that is never linked has no index, and unlinking it has no effect.
                    if let Ok(place) = self.jobs.binary_search(job) {
                        touched.push((place, matches!(change.change, Change::Link(_))));
                    }
                }
            }
        }
        let mut changed = self.level != level_before;
        // The last change of a job at an instant applies.
        touched.sort_by_key(|(place, _)| *place);
        for of_place in touched.chunk_by(|(left, _), (right, _)| left == right) {
            if let Some((place, linked)) = of_place.last() {
                changed |= self.set(*place, *linked);
            }
        }
        if changed && let Some(first) = instant.first() {
            self.segment_start = first.at;
        }
    }

    /// Links or unlinks a job, and returns whether that changed its state.
    fn set(&mut self, index: usize, linked: bool) -> bool {
        if self.places.get(index).is_none_or(|place| place.linked == linked) {
            return false;
        }
        self.settle(index);
        if let Some(place) = self.places.get_mut(index) {
            place.linked = linked;
        }
        let one = if linked { 1 } else { -1 };
        self.linked.add(index, one);
        self.linked_count += one;
        if let Some(jobs) = self.user_of.get(index).and_then(|user| self.jobs_of_user.get_mut(*user)) {
            let had = *jobs;
            *jobs = if linked { had + 1 } else { had.saturating_sub(1) };
            self.users = self.users + usize::from(had == 0) - usize::from(*jobs == 0);
        }
        true
    }

    /// Adds to a linked job its share since it was settled last, and notes the current sums.
    fn settle(&mut self, index: usize) {
        let now = (self.together, self.more_count - self.more.before(index));
        let shared = self.shared;
        let span = self.spans.len();
        let Some(place) = self.places.get_mut(index) else { return };
        if place.linked && shared > place.since_shared {
            place.shared = true;
            if let Some(share) = place.shares.get_mut(span) {
                *share += now.0 - place.since.0 + now.1 - place.since.1;
            }
        }
        (place.since, place.since_shared) = (now, shared);
    }

    /// Advances time over an interval without changes.
    fn pass(&mut self, from: Timestamp, until: Timestamp) {
        if until <= from || self.level == 0 {
            return;
        }
        let area = |at: Timestamp| self.level * Span::new(self.segment_start, at).millis();
        let (before, after) = (area(from), area(until));
        self.present.byte_ms += after - before;
        self.present.stored = true;
        self.present.negative |= self.level < 0;
        let attributed = self.linked_count > 0 && (self.rule == SharingRule::Split || self.users == 1);
        if !attributed {
            self.present.unattributed_byte_ms += after - before;
            return;
        }
        let jobs = self.linked_count;
        self.shared += 1;
        if jobs == 1 {
            self.together += after - before;
            return;
        }
        self.together += after.div_euclid(jobs) - before.div_euclid(jobs);
        self.add_ones(after.rem_euclid(jobs), 1);
        self.add_ones(before.rem_euclid(jobs), -1);
    }

    /// Gives `one` to the first `jobs` linked jobs.
    fn add_ones(&mut self, jobs: i128, one: i128) {
        if jobs > 0 {
            self.more.add(self.linked.reaching(jobs), one);
            self.more_count += one;
        }
    }

    /// Ends the current span and settles all jobs.
    fn end_span(&mut self) {
        if self.shared > self.shared_before {
            for index in 0..self.places.len() {
                self.settle(index);
            }
            self.shared_before = self.shared;
        }
        self.spans.push(std::mem::take(&mut self.present));
    }

    fn finish(self) -> Shares<J> {
        let of_jobs = self.jobs.into_iter().zip(self.places).filter(|(_, place)| place.shared);
        Shares { spans: self.spans, jobs: of_jobs.map(|(job, place)| (job, place.shares)).collect() }
    }
}

#[cfg(test)]
mod tests {
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
                let rule = rules
                    .iter()
                    .rev()
                    .find(|(from, _)| *from <= millisecond)
                    .map_or(SharingRule::Split, |(_, rule)| *rule);
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
            let found = shares(&changes, &spans, &rules(&of_terms), user);
            for (index, span) in spans.iter().enumerate() {
                let (file, jobs) = shares_by_millisecond(&changes, *span, &of_terms);
                prop_assert_eq!(found.spans[index], file);
                let of_jobs: BTreeMap<u8, i128> = jobs.into_iter().collect();
                for (job, shares) in &found.jobs {
                    prop_assert_eq!(shares[index], of_jobs.get(job).copied().unwrap_or(0), "job {}", job);
                }
                for job in of_jobs.keys() {
                    prop_assert!(found.jobs.iter().any(|(found, _)| found == job), "job {}", job);
                }
            }
            let over_all = Span::new(at(cuts[0]), at(*cuts.last().unwrap()));
            prop_assert_eq!(found.total(), shares_by_millisecond(&changes, over_all, &of_terms));
        }
    }
}

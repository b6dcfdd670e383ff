//! A file's shares over spans.

use std::collections::BTreeMap;

use epoch::Timestamp;

use super::{Change, FileChange, Rule, tree::Tree};
use crate::domain::span::Span;

/// A file in a span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shares<J> {
    /// Its area.
    pub byte_ms: i128,
    /// What of it is no job's.
    pub unattributed_byte_ms: i128,
    /// The jobs that used it while it held something, by id, and their shares.
    pub jobs: Vec<(J, i128)>,
    /// Whether it held something at any time in the span.
    pub stored: bool,
    /// Whether it held less than nothing at any time in the span.
    pub negative: bool,
}

/// A file's shares in spans that follow each other. Changes come in the order in which they apply; `user` says whose a job is.
pub fn shares<J: Ord + Clone, U: Ord>(
    changes: &[FileChange<J>],
    spans: &[Span],
    rule: Rule,
    user: impl Fn(&J) -> U,
) -> Vec<Shares<J>> {
    let mut file = File::new(changes, rule, user);
    let mut coming = changes.chunk_by(|left, right| left.at == right.at).peekable();
    let mut answers = Vec::new();
    for span in spans {
        let mut reached = span.start();
        while let Some(instant) = coming.next_if(|instant| instant.first().is_some_and(|first| first.at <= reached)) {
            file.apply(instant);
        }
        file.begin();
        loop {
            let next = coming.peek().and_then(|instant| instant.first()).map_or(span.end(), |first| first.at);
            let until = next.min(span.end());
            file.pass(reached, until);
            if next >= span.end() {
                break;
            }
            reached = until;
            if let Some(instant) = coming.next() {
                file.apply(instant);
            }
        }
        answers.push(file.answer());
    }
    answers
}

/// A job that the file is linked to at some time, at its place among them by id.
struct Place {
    linked: bool,
    /// What every linked job had together when this one was linked, and what this place alone had.
    since: (i128, i128),
    /// In how many spans of time something had been shared by then.
    since_shared: u64,
    /// What it has of the present span, up to `since`.
    share: i128,
    shared: bool,
}

struct File<J> {
    rule: Rule,
    jobs: Vec<J>,
    places: Vec<Place>,
    /// 1 for each linked job, by place.
    linked: Tree,
    linked_count: i128,
    /// Whose job each is: the place of the user's first job stands for the user.
    user_of: Vec<usize>,
    /// How many linked jobs each user has, of those who have one.
    users: BTreeMap<usize, usize>,
    level: i128,
    segment_start: Timestamp,
    /// What every linked job has got: the sum of all q.
    together: i128,
    /// Ones more, for all places up to the one they are noted at.
    more: Tree,
    more_count: i128,
    shared: u64,
    present: Present,
}

/// What is known of the present span.
#[derive(Default)]
struct Present {
    byte_ms: i128,
    unattributed_byte_ms: i128,
    stored: bool,
    negative: bool,
}

impl<J: Ord + Clone> File<J> {
    fn new<U: Ord>(changes: &[FileChange<J>], rule: Rule, user: impl Fn(&J) -> U) -> Self {
        let mut jobs = Vec::new();
        for change in changes {
            if let Change::Link(job) = &change.change {
                jobs.push(job.clone());
            }
        }
        jobs.sort_unstable();
        jobs.dedup();
        let mut first = BTreeMap::new();
        let user_of = jobs.iter().enumerate().map(|(index, job)| *first.entry(user(job)).or_insert(index)).collect();
        let place = |_: &J| Place { linked: false, since: (0, 0), since_shared: 0, share: 0, shared: false };
        let places: Vec<_> = jobs.iter().map(place).collect();
        let count = places.len();
        Self {
            rule,
            jobs,
            places,
            linked: Tree::new(count),
            linked_count: 0,
            user_of,
            users: BTreeMap::new(),
            level: 0,
            segment_start: Timestamp::from_millis(0),
            together: 0,
            more: Tree::new(count),
            more_count: 0,
            shared: 0,
            present: Present::default(),
        }
    }

    /// Applies the changes of one instant, which are one change.
    fn apply(&mut self, instant: &[FileChange<J>]) {
        let level_before = self.level;
        let mut touched: BTreeMap<usize, bool> = BTreeMap::new();
        for change in instant {
            match &change.change {
                Change::Level(delta) => self.level += i128::from(*delta),
                Change::Link(job) | Change::Unlink(job) => {
                    // A job that is never linked has no place, and unlinking it changes nothing.
                    if let Ok(place) = self.jobs.binary_search(job) {
                        touched.insert(place, matches!(change.change, Change::Link(_)));
                    }
                }
            }
        }
        let mut changed = self.level != level_before;
        for (place, linked) in touched {
            changed |= self.set(place, linked);
        }
        if changed && let Some(first) = instant.first() {
            self.segment_start = first.at;
        }
    }

    /// Links or unlinks a job; says whether that changed anything.
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
        if let Some(user) = self.user_of.get(index) {
            let jobs = self.users.entry(*user).or_insert(0);
            *jobs = if linked { *jobs + 1 } else { jobs.saturating_sub(1) };
            if *jobs == 0 {
                self.users.remove(user);
            }
        }
        true
    }

    /// Credits a job with what it got since the last time, if it is linked, and remembers where it is now.
    fn settle(&mut self, index: usize) {
        let now = (self.together, self.more_count - self.more.before(index));
        let shared = self.shared;
        let Some(place) = self.places.get_mut(index) else { return };
        if place.linked {
            place.share += now.0 - place.since.0 + now.1 - place.since.1;
            place.shared |= shared > place.since_shared;
        }
        (place.since, place.since_shared) = (now, shared);
    }

    /// Time passes in which nothing changes.
    fn pass(&mut self, from: Timestamp, until: Timestamp) {
        if until <= from || self.level == 0 {
            return;
        }
        let area = |at: Timestamp| self.level * Span::new(self.segment_start, at).millis();
        let (before, after) = (area(from), area(until));
        self.present.byte_ms += after - before;
        self.present.stored = true;
        self.present.negative |= self.level < 0;
        let attributed = self.linked_count > 0 && (self.rule == Rule::Split || self.users.len() == 1);
        if !attributed {
            self.present.unattributed_byte_ms += after - before;
            return;
        }
        let jobs = self.linked_count;
        self.together += after.div_euclid(jobs) - before.div_euclid(jobs);
        self.one_more(after.rem_euclid(jobs), 1);
        self.one_more(before.rem_euclid(jobs), -1);
        self.shared += 1;
    }

    /// The first `jobs` of the linked ones get one more.
    fn one_more(&mut self, jobs: i128, one: i128) {
        if jobs > 0 {
            self.more.add(self.linked.reaching(jobs), one);
            self.more_count += one;
        }
    }

    /// A new span begins.
    fn begin(&mut self) {
        self.present = Present::default();
        for index in 0..self.places.len() {
            self.settle(index);
            if let Some(place) = self.places.get_mut(index) {
                (place.share, place.shared) = (0, false);
            }
        }
    }

    fn answer(&mut self) -> Shares<J> {
        for index in 0..self.places.len() {
            self.settle(index);
        }
        let of_jobs = self.jobs.iter().zip(&self.places).filter(|(_, place)| place.shared);
        let jobs = of_jobs.map(|(job, place)| (job.clone(), place.share)).collect();
        let Present { byte_ms, unattributed_byte_ms, stored, negative } = self.present;
        Shares { byte_ms, unattributed_byte_ms, jobs, stored, negative }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use epoch::Timestamp;
    use proptest::{collection::vec, prelude::*};

    use super::{Shares, shares};
    use crate::domain::{
        sharing::{Change, FileChange, Rule, cumulative_share},
        span::Span,
    };

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn change(millis: i64, change: Change<u8>) -> FileChange<u8> {
        FileChange { at: at(millis), change }
    }

    /// Jobs 0 and 1 are of one user, 2 and 3 of another, and so on.
    fn user(job: &u8) -> u8 {
        job / 2
    }

    /// The rule, word for word: maximal segments, and each linked job's share of each.
    fn naive(changes: &[FileChange<u8>], span: Span, rule: Rule) -> Shares<u8> {
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
            let area = |until: Timestamp| i128::from(*level) * i128::from(until.as_millis() - start);
            let (before, after) = (area(within.start()), area(within.end()));
            byte_ms += after - before;
            let users: BTreeSet<_> = jobs.iter().map(user).collect();
            if jobs.is_empty() || (rule == Rule::UnsharedOnly && users.len() > 1) {
                unattributed_byte_ms += after - before;
                continue;
            }
            for (rank, job) in jobs.iter().enumerate() {
                let share = |area| cumulative_share(area, jobs.len() as u32, rank as u32);
                *of_jobs.entry(*job).or_insert(0) += share(after) - share(before);
            }
        }
        Shares { byte_ms, unattributed_byte_ms, jobs: of_jobs.into_iter().collect(), stored, negative }
    }

    #[test]
    fn a_link_outlives_the_file_and_may_come_before_it() {
        let changes = [
            change(0, Change::Link(1)),
            change(10, Change::Level(7)),
            change(20, Change::Level(-7)),
            change(30, Change::Level(5)),
            change(35, Change::Unlink(2)),
            change(40, Change::Unlink(1)),
        ];
        let shares = shares(&changes, &[Span::new(at(0), at(50))], Rule::Split, user);
        let expected =
            Shares { byte_ms: 70 + 100, unattributed_byte_ms: 50, jobs: vec![(1, 120)], stored: true, negative: false };
        assert_eq!(shares, [expected]);
    }

    #[test]
    fn linking_twice_is_linking_once_and_an_instant_is_one_change() {
        let changes = [
            change(0, Change::Level(1)),
            change(0, Change::Link(1)),
            change(0, Change::Link(2)),
            // Neither of these begins a new segment, in which job 1 would have the odd byte-millisecond again.
            change(1, Change::Link(2)),
            change(1, Change::Unlink(1)),
            change(1, Change::Link(1)),
            change(1, Change::Level(-1)),
            change(1, Change::Level(1)),
            change(3, Change::Unlink(2)),
        ];
        let shares = shares(&changes, &[Span::new(at(0), at(3))], Rule::Split, user);
        assert_eq!(shares[0].jobs, [(1, 2), (2, 1)]);
    }

    #[test]
    fn a_file_that_users_share_may_be_nobodys() {
        let changes = [
            change(0, Change::Level(1)),
            change(0, Change::Link(0)),
            change(10, Change::Link(1)),
            change(20, Change::Link(2)),
        ];
        let shares = shares(&changes, &[Span::new(at(0), at(30))], Rule::UnsharedOnly, user);
        assert_eq!((shares[0].unattributed_byte_ms, &shares[0].jobs), (10, &vec![(0, 15), (1, 5)]));
    }

    fn any_changes() -> impl Strategy<Value = Vec<FileChange<u8>>> {
        let level = prop_oneof![0..20_i64, -20..20_i64, any::<i64>()].prop_map(Change::Level);
        let job = 0..9_u8;
        let any = prop_oneof![level, job.clone().prop_map(Change::Link), job.prop_map(Change::Unlink)];
        vec((0..60_i64, any), 0..40).prop_map(|mut changes| {
            changes.sort_by_key(|(at, _)| *at);
            // The level itself stays within what a size can be.
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

    proptest! {
        #[test]
        fn is_the_rule_word_for_word(changes in any_changes(), start in -5..40_i64, length in 0..50_i64, unshared: bool) {
            let rule = if unshared { Rule::UnsharedOnly } else { Rule::Split };
            let span = Span::new(at(start), at(start + length));
            let found = shares(&changes, &[span], rule, user);
            prop_assert_eq!(&found[0], &naive(&changes, span, rule));
            let of_jobs: i128 = found[0].jobs.iter().map(|(_, share)| share).sum();
            prop_assert_eq!(of_jobs + found[0].unattributed_byte_ms, found[0].byte_ms);
        }

        #[test]
        fn days_sum_to_the_whole_for_every_job(changes in any_changes(), cuts in vec(-5..80_i64, 5)) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            let spans: Vec<_> = cuts.windows(2).map(|ends| Span::new(at(ends[0]), at(ends[1]))).collect();
            let whole = Span::new(at(cuts[0]), at(cuts[4]));
            let days = shares(&changes, &spans, Rule::Split, user);
            let whole = shares(&changes, &[whole], Rule::Split, user).remove(0);
            let mut of_jobs: BTreeMap<u8, i128> = BTreeMap::new();
            for (job, share) in days.iter().flat_map(|day| &day.jobs) {
                *of_jobs.entry(*job).or_insert(0) += share;
            }
            prop_assert_eq!(of_jobs.into_iter().collect::<Vec<_>>(), whole.jobs);
            prop_assert_eq!(days.iter().map(|day| day.byte_ms).sum::<i128>(), whole.byte_ms);
            prop_assert_eq!(days.iter().map(|day| day.unattributed_byte_ms).sum::<i128>(), whole.unattributed_byte_ms);
        }
    }
}

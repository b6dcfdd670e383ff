//! The state of a file while its changes are applied in order of time.

use epoch::Timestamp;

use crate::{
    calendar::span::Span,
    sharing::{
        file_change::{Change, FileChange},
        rule::SharingRule,
        tree::Tree,
    },
};

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

pub(super) struct FileState<J> {
    /// The sharing rule that applies now.
    pub(super) rule: SharingRule,
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
    pub(super) fn new<U: Ord>(changes: &[FileChange<J>], spans: usize, user: impl Fn(&J) -> U) -> Self {
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
    pub(super) fn apply(&mut self, instant: &[FileChange<J>]) {
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
    pub(super) fn pass(&mut self, from: Timestamp, until: Timestamp) {
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
    pub(super) fn end_span(&mut self) {
        if self.shared > self.shared_before {
            for index in 0..self.places.len() {
                self.settle(index);
            }
            self.shared_before = self.shared;
        }
        self.spans.push(std::mem::take(&mut self.present));
    }

    /// Returns the storage in each span, and the jobs with shares.
    pub(super) fn finish(self) -> (Vec<FileSpanUsage>, Vec<(J, Vec<i128>)>) {
        let of_jobs = self.jobs.into_iter().zip(self.places).filter(|(_, place)| place.shared);
        (self.spans, of_jobs.map(|(job, place)| (job, place.shares)).collect())
    }
}

//! The events of a document in order, by file and by job.
//!
//! The history does not depend on the order of the input: events of one instant apply in the order of `seq`,
//! then of their ids.

use std::collections::BTreeMap;

use epoch::Timestamp;

use crate::{
    metering::{
        level::LevelChange,
        pairing::{Moment, MomentKind},
    },
    sharing::file_change::{Change, FileChange},
};

/// An event of the document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event<'d> {
    pub(super) id: &'d str,
    pub(super) at: Timestamp,
    pub(super) recorded_at: Timestamp,
    pub(super) seq: i64,
    pub(super) kind: Kind<'d>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind<'d> {
    FileStored { file: &'d str, bytes: i64 },
    FileDeleted { file: &'d str },
    FileLinked { job: &'d str, file: &'d str },
    FileUnlinked { job: &'d str, file: &'d str },
    JobCreated { job: &'d str, user: Option<&'d str> },
    JobStarted { job: &'d str, user: &'d str },
    JobCompleted { job: &'d str },
}

impl Kind<'_> {
    /// Returns whether the event may have a file, a job, a user and a size.
    pub(super) fn fields(&self) -> (bool, bool, bool, bool) {
        match self {
            Kind::FileStored { .. } => (true, false, false, true),
            Kind::FileDeleted { .. } => (true, false, false, false),
            Kind::FileLinked { .. } | Kind::FileUnlinked { .. } => (true, true, false, false),
            Kind::JobCreated { .. } | Kind::JobStarted { .. } => (false, true, true, false),
            Kind::JobCompleted { .. } => (false, true, false, false),
        }
    }
}

impl Event<'_> {
    /// Returns whether both events have the same content; the time of recording is ignored.
    pub(super) fn has_same_content(&self, other: &Self) -> bool {
        (self.id, self.at, self.seq, &self.kind) == (other.id, other.at, other.seq, &other.kind)
    }
}

/// A start of a job for a user, or an end of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct JobMoment<'d> {
    at: Timestamp,
    pub(super) user: Option<&'d str>,
    kind: MomentKind,
}

impl Moment for JobMoment<'_> {
    fn kind(&self) -> MomentKind {
        self.kind
    }

    fn at(&self) -> Timestamp {
        self.at
    }
}

/// The history of each file and job.
#[derive(Debug, Default)]
pub(super) struct History<'d> {
    pub(super) files: BTreeMap<&'d str, FileHistory<'d>>,
    pub(super) jobs: BTreeMap<&'d str, Vec<JobMoment<'d>>>,
    /// The creation time and the creator of each job. The first event counts if there are several.
    created: BTreeMap<&'d str, (Timestamp, Option<&'d str>)>,
}

/// The history of a file, in order.
#[derive(Debug, Default)]
pub(super) struct FileHistory<'d> {
    pub(super) changes: Vec<FileChange<&'d str>>,
    /// Instants of deletions of the file while it did not exist.
    pub(super) deleted_while_absent: Vec<Timestamp>,
    size: Option<i64>,
}

impl<'d> FileHistory<'d> {
    /// Returns the changes of the file's size.
    pub(super) fn levels(&self) -> Vec<LevelChange> {
        let mut levels = Vec::new();
        for change in &self.changes {
            if let Change::Level(delta) = change.change {
                levels.push(LevelChange { at: change.at, delta });
            }
        }
        levels
    }

    fn resize(&mut self, at: Timestamp, size: Option<i64>) {
        let delta = size.unwrap_or(0) - self.size.unwrap_or(0);
        self.changes.push(FileChange { at, change: Change::Level(delta) });
        self.size = size;
    }
}

impl<'d> History<'d> {
    /// Builds the history from events, each given once.
    pub(super) fn of(mut events: Vec<Event<'d>>) -> Self {
        events.sort_unstable_by(|left, right| (left.at, left.seq, left.id).cmp(&(right.at, right.seq, right.id)));
        let mut history = Self::default();
        for Event { at, kind, .. } in events {
            match kind {
                Kind::FileStored { file, bytes } => history.files.entry(file).or_default().resize(at, Some(bytes)),
                Kind::FileDeleted { file } => {
                    let file = history.files.entry(file).or_default();
                    match file.size {
                        Some(_) => file.resize(at, None),
                        None => file.deleted_while_absent.push(at),
                    }
                }
                Kind::FileLinked { job, file } => history.change(file, at, Change::Link(job)),
                Kind::FileUnlinked { job, file } => history.change(file, at, Change::Unlink(job)),
                Kind::JobCreated { job, user } => {
                    history.created.entry(job).or_insert((at, user));
                }
                Kind::JobStarted { job, user } => {
                    let started = JobMoment { at, user: Some(user), kind: MomentKind::Started };
                    history.jobs.entry(job).or_default().push(started);
                }
                Kind::JobCompleted { job } => {
                    let completed = JobMoment { at, user: None, kind: MomentKind::Completed };
                    history.jobs.entry(job).or_default().push(completed);
                }
            }
        }
        history
    }

    /// Returns the creator of a job if the job was created by `as_of` and has a creator.
    pub(super) fn user(&self, job: &str, as_of: Timestamp) -> Option<&'d str> {
        let (at, user) = self.created.get(job)?;
        user.filter(|_| *at <= as_of)
    }

    fn change(&mut self, file: &'d str, at: Timestamp, change: Change<&'d str>) {
        self.files.entry(file).or_default().changes.push(FileChange { at, change });
    }
}

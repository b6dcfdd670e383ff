//! Files that several jobs use, and what of them is whose.
//!
//! The problem: one file serves many jobs, and its cost is to be told by job, without a byte-millisecond lost or invented,
//! whatever days and periods it is cut into.
//!
//! The rule: a segment is a maximal span in which a file's size and its set of linked jobs stay the same. With k jobs sorted by
//! id, rank i from 0, and `A(t) = bytes·(t − segment start)`, job i's cumulative share is `⌊(A(t) + k − 1 − i) / k⌋`; its usage in
//! `[a, b)` is the difference. What no job uses is unattributed.
//!
//! Which rule applies may change ([`Rules`]); at each instant it is the one of that instant, and the change begins no segment.
//!
//! The invariant: jobs and what is unattributed sum to the file exactly, and spans that follow each other sum to the whole exactly,
//! for every job, through changes of the rule too. That a file is deleted doesn't unlink it, and linking it before it is stored, or twice, changes nothing.
//!
//! With `A = q·k + r` the share is `q`, and one more for the first r jobs. So a segment costs the logarithm of the number of jobs,
//! not the number: all take part in one sum of q, and the ones more are kept in a tree over the jobs' ids ([`tree`]).

mod shares;
mod tree;

pub use shares::shares;

use epoch::Timestamp;

use super::{rating::Term, refused::Refused};

/// How a file is shared by the jobs it is linked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Rule {
    /// Among all of them.
    #[default]
    Split,
    /// Only a file whose jobs are all of one user is attributed to them; one that users share is unattributed. A job of nobody known
    /// counts as a user of its own: that two of them are of one isn't known.
    UnsharedOnly,
}

impl Rule {
    /// The rule of this name.
    ///
    /// # Errors
    /// [`Refused`] when there is none.
    pub fn named(name: &str) -> Result<Self, Refused> {
        match name {
            "split" => Ok(Rule::Split),
            "unshared_only" => Ok(Rule::UnsharedOnly),
            other => Err(Refused::new("split", format!("there is no rule {other:?}"))),
        }
    }

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Rule::Split => "split",
            Rule::UnsharedOnly => "unshared_only",
        }
    }
}

/// Which rule applies when: each from its instant on; before the first, files are split.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rules(Vec<(Timestamp, Rule)>);

impl Rules {
    /// Those of the plans that apply, in order of time.
    #[must_use]
    pub fn of(terms: &[Term]) -> Self {
        terms.iter().map(|term| (term.span.start(), term.plan.split)).collect()
    }

    /// The one that applies in the end.
    #[must_use]
    pub fn last(&self) -> Rule {
        self.0.last().map_or(Rule::Split, |(_, rule)| *rule)
    }

    /// Whether any of them asks whose the jobs are.
    #[must_use]
    pub fn ask_whose(&self) -> bool {
        self.0.iter().any(|(_, rule)| *rule == Rule::UnsharedOnly)
    }
}

/// One rule, always.
impl From<Rule> for Rules {
    fn from(rule: Rule) -> Self {
        [(Timestamp::from_millis(i64::MIN), rule)].into_iter().collect()
    }
}

/// In order of time.
impl FromIterator<(Timestamp, Rule)> for Rules {
    fn from_iter<I: IntoIterator<Item = (Timestamp, Rule)>>(all: I) -> Self {
        let mut rules = Self::default();
        for (from, rule) in all {
            if rules.last() != rule {
                rules.0.push((from, rule));
            }
        }
        rules
    }
}

/// Something happens to a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileChange<J> {
    /// When.
    pub at: Timestamp,
    /// What.
    pub change: Change<J>,
}

/// What happens to a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change<J> {
    /// It holds so many bytes more, or fewer.
    Level(i64),
    /// A job uses it from now on.
    Link(J),
    /// A job doesn't use it any more.
    Unlink(J),
}

/// How jobs share a file, in spans that follow each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shares<J> {
    /// The file itself, in each span.
    pub spans: Vec<InSpan>,
    /// The jobs that used it while it held something, by id, and their shares in each span.
    pub jobs: Vec<(J, Vec<i128>)>,
}

impl<J> Shares<J> {
    /// The same of all spans together.
    #[must_use]
    pub fn together(self) -> (InSpan, Vec<(J, i128)>) {
        let file = self.spans.into_iter().fold(InSpan::default(), |sum, span| InSpan {
            byte_ms: sum.byte_ms + span.byte_ms,
            unattributed_byte_ms: sum.unattributed_byte_ms + span.unattributed_byte_ms,
            stored: sum.stored || span.stored,
            negative: sum.negative || span.negative,
        });
        (file, self.jobs.into_iter().map(|(job, shares)| (job, shares.into_iter().sum())).collect())
    }
}

/// A file in a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InSpan {
    /// Its area.
    pub byte_ms: i128,
    /// What of it is no job's.
    pub unattributed_byte_ms: i128,
    /// Whether it held something at any time.
    pub stored: bool,
    /// Whether it held less than nothing at any time.
    pub negative: bool,
}

/// A job's cumulative share of an area: `⌊(area + k − 1 − rank) / k⌋` for `jobs` = k jobs.
#[must_use]
pub fn cumulative_share(area: i128, jobs: u32, rank: u32) -> i128 {
    let (jobs, rank) = (i128::from(jobs.max(1)), i128::from(rank));
    (area + jobs - 1 - rank).div_euclid(jobs)
}

//! The shares of jobs in a file, over contiguous spans.

mod file_state;

pub use file_state::FileSpanUsage;

use crate::{
    calendar::span::Span,
    sharing::{file_change::FileChange, rule::SharingRules},
};
use file_state::FileState;

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
    let (spans, jobs) = file.finish();
    Shares { spans, jobs }
}

#[cfg(test)]
mod tests;

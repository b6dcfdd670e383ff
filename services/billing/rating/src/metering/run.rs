//! Run times of jobs.
//!
//! Clocks of machines differ, so a run may end before it started, and its end may arrive before its start.
//! Invariant: a run counts the milliseconds of `[started, ended)`, or up to `as_of` while it is running,
//! clipped to the requested span and never below 0. Anomalies are reported.

use epoch::Timestamp;

use crate::{
    calendar::span::Span,
    metering::{anomaly::AnomalyKind, level::LevelChange},
};

/// One run of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The start, or `None` if it is unknown.
    pub started_at: Option<Timestamp>,
    /// The end, or `None` while the job is running.
    pub ended_at: Option<Timestamp>,
}

impl Run {
    /// Returns the run as it was at an instant, without later moments.
    #[must_use]
    pub fn as_of(self, as_of: Timestamp) -> Self {
        let known = |at: Option<Timestamp>| at.filter(|at| *at <= as_of);
        match known(self.started_at) {
            Some(started_at) => Self { started_at: Some(started_at), ended_at: known(self.ended_at) },
            // The end alone would look like an end without a start.
            None if self.started_at.is_some() => Self { started_at: None, ended_at: None },
            None => Self { started_at: None, ended_at: known(self.ended_at) },
        }
    }

    #[must_use]
    pub fn is_running(self) -> bool {
        self.started_at.is_some() && self.ended_at.is_none()
    }

    /// Returns the anomaly of the run, if there is one.
    #[must_use]
    pub fn anomaly(self) -> Option<AnomalyKind> {
        match (self.started_at, self.ended_at) {
            (Some(started_at), Some(ended_at)) if ended_at < started_at => Some(AnomalyKind::CompletedBeforeStarted),
            (None, Some(_)) => Some(AnomalyKind::CompletedWithoutStart),
            _ => None,
        }
    }

    /// Returns the span of the run, up to `as_of` while it is running, or `None` before its start.
    #[must_use]
    pub fn span(self, as_of: Timestamp) -> Option<Span> {
        let run = self.as_of(as_of);
        Some(Span::new(run.started_at?, run.ended_at.unwrap_or(as_of)))
    }

    /// Returns the run time within `span` in milliseconds, as of an instant.
    #[must_use]
    pub fn millis_within(self, span: Span, as_of: Timestamp) -> i128 {
        self.span(as_of).map_or(0, |run| run.intersect(span).millis())
    }

    /// Returns whether the run overlaps `span`, as of an instant. A run of zero length overlaps the span that
    /// contains its start or its end.
    #[must_use]
    pub fn overlaps(self, span: Span, as_of: Timestamp) -> bool {
        let run = self.as_of(as_of);
        if let Some(ran) = run.span(as_of)
            && !ran.is_empty()
        {
            return !ran.intersect(span).is_empty();
        }
        run.started_at.into_iter().chain(run.ended_at).any(|at| span.start() <= at && at < span.end())
    }

    /// Returns the run as changes of the number of running jobs, as of an instant. Their area is the run
    /// time.
    #[must_use]
    pub fn level_changes(self, as_of: Timestamp) -> Option<[LevelChange; 2]> {
        let span = self.span(as_of)?;
        Some([LevelChange { at: span.start(), delta: 1 }, LevelChange { at: span.end(), delta: -1 }])
    }
}

#[cfg(test)]
mod tests {
    use epoch::Timestamp;
    use proptest::prelude::*;

    use super::Run;
    use crate::{
        calendar::span::Span,
        metering::{anomaly::AnomalyKind, level::areas},
    };

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn run(started: Option<i64>, ended: Option<i64>) -> Run {
        Run { started_at: started.map(at), ended_at: ended.map(at) }
    }

    fn span(start: i64, end: i64) -> Span {
        Span::new(at(start), at(end))
    }

    #[test]
    fn run_counts_only_within_the_span() {
        let ended = run(Some(10), Some(30));
        assert_eq!(ended.millis_within(span(0, 100), at(100)), 20);
        assert_eq!(ended.millis_within(span(15, 25), at(100)), 10);
        assert_eq!(ended.millis_within(span(30, 100), at(100)), 0);
        assert_eq!(ended.millis_within(span(0, 10), at(100)), 0);
        assert_eq!(ended.millis_within(span(0, 100), at(17)), 7, "its end is later than as_of");
        assert_eq!(ended.millis_within(span(0, 100), at(5)), 0, "its start is later than as_of");
    }

    #[test]
    fn running_job_counts_up_to_as_of() {
        let running = run(Some(10), None);
        assert_eq!(running.millis_within(span(0, 100), at(40)), 30);
        assert_eq!(running.millis_within(span(0, 100), at(400)), 90);
        assert!(running.is_running() && running.as_of(at(10)).is_running() && !running.as_of(at(9)).is_running());
        assert!(run(Some(10), Some(30)).as_of(at(29)).is_running());
        assert!(!run(Some(10), Some(30)).as_of(at(30)).is_running());
    }

    #[test]
    fn end_before_the_start_counts_zero_and_is_an_anomaly() {
        let backwards = run(Some(30), Some(10));
        assert_eq!(backwards.millis_within(span(0, 100), at(100)), 0);
        assert_eq!(backwards.anomaly(), Some(AnomalyKind::CompletedBeforeStarted));
        assert_eq!(backwards.as_of(at(20)), run(None, None), "the run does not exist before its start");
        let without = run(None, Some(10));
        assert_eq!(without.millis_within(span(0, 100), at(100)), 0);
        assert_eq!(without.anomaly(), Some(AnomalyKind::CompletedWithoutStart));
        for fine in [run(Some(10), Some(10)), run(Some(10), Some(11)), run(Some(10), None), run(None, None)] {
            assert_eq!(fine.anomaly(), None);
        }
    }

    #[test]
    fn overlap_respects_half_open_spans() {
        let ended = run(Some(10), Some(30));
        let cases = [(0, 10, false), (0, 11, true), (29, 40, true), (30, 40, false), (12, 13, true)];
        for (start, end, touches) in cases {
            assert_eq!(ended.overlaps(span(start, end), at(100)), touches, "{start}..{end}");
        }
        let instantaneous = run(Some(10), Some(10));
        assert!(instantaneous.overlaps(span(10, 20), at(100)) && !instantaneous.overlaps(span(0, 10), at(100)));
        let running = run(Some(10), None);
        assert!(running.overlaps(span(40, 50), at(100)) && !running.overlaps(span(40, 50), at(40)));
        let backwards = run(Some(30), Some(10));
        for (start, end, touches) in [(0, 20, true), (30, 40, true), (12, 30, false), (31, 40, false)] {
            assert_eq!(backwards.overlaps(span(start, end), at(100)), touches, "{start}..{end}");
        }
        assert!(run(None, Some(10)).overlaps(span(0, 20), at(100)));
        assert!(!run(None, None).overlaps(span(0, 20), at(100)));
    }

    proptest! {
        #[test]
        fn area_of_running_jobs_equals_their_run_times(
            runs in prop::collection::vec((prop::option::of(0..50_i64), prop::option::of(0..50_i64)), 0..20),
            cuts in prop::collection::vec(-5..60_i64, 4),
            as_of in -5..60_i64,
        ) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            let runs: Vec<_> = runs.into_iter().map(|(started, ended)| run(started, ended)).collect();
            let spans: Vec<_> = cuts.windows(2).map(|ends| span(ends[0], ends[1])).collect();
            let changes: Vec<_> = runs.iter().filter_map(|run| run.level_changes(at(as_of))).flatten().collect();
            let one_by_one: Vec<i128> = spans
                .iter()
                .map(|span| runs.iter().map(|run| run.millis_within(*span, at(as_of))).sum())
                .collect();
            prop_assert_eq!(areas(&changes, spans.iter().copied()), one_by_one);
            for run in &runs {
                for span in &spans {
                    let millis = run.millis_within(*span, at(as_of));
                    prop_assert!(millis >= 0 && millis <= span.millis());
                    prop_assert!(millis == 0 || run.overlaps(*span, at(as_of)));
                }
            }
        }
    }
}

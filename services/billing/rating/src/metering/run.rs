//! How long jobs ran.
//!
//! The problem: machines' clocks differ, so a run may end before it started, and its end may come before its start is known.
//!
//! The invariant: a run counts the milliseconds of `[started, ended)`, or up to `as_of` while it goes on, clipped to the span
//! asked about; never less than 0. What is odd is flagged.

use epoch::Timestamp;

use crate::{
    calendar::span::Span,
    metering::{anomaly::Flag, level::LevelChange},
};

/// One run of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// When it started; `None` when that is not known.
    pub started_at: Option<Timestamp>,
    /// When it ended, in whatever way; `None` while it goes on.
    pub ended_at: Option<Timestamp>,
}

impl Run {
    /// The run as it was at an instant: what happened later has not happened yet.
    #[must_use]
    pub fn as_of(self, as_of: Timestamp) -> Self {
        let known = |at: Option<Timestamp>| at.filter(|at| *at <= as_of);
        match known(self.started_at) {
            Some(started_at) => Self { started_at: Some(started_at), ended_at: known(self.ended_at) },
            // Its end alone would look like an end without a start.
            None if self.started_at.is_some() => Self { started_at: None, ended_at: None },
            None => Self { started_at: None, ended_at: known(self.ended_at) },
        }
    }

    /// Whether it goes on.
    #[must_use]
    pub fn goes_on(self) -> bool {
        self.started_at.is_some() && self.ended_at.is_none()
    }

    /// What is odd about it.
    #[must_use]
    pub fn flag(self) -> Option<Flag> {
        match (self.started_at, self.ended_at) {
            (Some(started_at), Some(ended_at)) if ended_at < started_at => Some(Flag::CompletedBeforeStarted),
            (None, Some(_)) => Some(Flag::CompletedWithoutStart),
            _ => None,
        }
    }

    /// The time it counts, while it goes on up to `as_of`; empty when it counts nothing.
    #[must_use]
    pub fn span(self, as_of: Timestamp) -> Option<Span> {
        let run = self.as_of(as_of);
        Some(Span::new(run.started_at?, run.ended_at.unwrap_or(as_of)))
    }

    /// The milliseconds it ran within `span`, as of an instant.
    #[must_use]
    pub fn millis_within(self, span: Span, as_of: Timestamp) -> i128 {
        self.span(as_of).map_or(0, |run| run.intersect(span).millis())
    }

    /// Whether it ran within `span`, as of an instant; of a run of no time, whether it started or ended there.
    #[must_use]
    pub fn touches(self, span: Span, as_of: Timestamp) -> bool {
        let run = self.as_of(as_of);
        if let Some(ran) = run.span(as_of)
            && !ran.is_empty()
        {
            return !ran.intersect(span).is_empty();
        }
        run.started_at.into_iter().chain(run.ended_at).any(|at| span.start() <= at && at < span.end())
    }

    /// The run as a change of how many jobs run, as of an instant; the area under these changes is the time they ran.
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
        metering::{anomaly::Flag, level::areas},
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
    fn counts_what_lies_in_the_span() {
        let ended = run(Some(10), Some(30));
        assert_eq!(ended.millis_within(span(0, 100), at(100)), 20);
        assert_eq!(ended.millis_within(span(15, 25), at(100)), 10);
        assert_eq!(ended.millis_within(span(30, 100), at(100)), 0);
        assert_eq!(ended.millis_within(span(0, 10), at(100)), 0);
        assert_eq!(ended.millis_within(span(0, 100), at(17)), 7, "its end has not happened yet");
        assert_eq!(ended.millis_within(span(0, 100), at(5)), 0, "it has not started yet");
    }

    #[test]
    fn a_run_that_goes_on_counts_up_to_as_of() {
        let going_on = run(Some(10), None);
        assert_eq!(going_on.millis_within(span(0, 100), at(40)), 30);
        assert_eq!(going_on.millis_within(span(0, 100), at(400)), 90);
        assert!(going_on.goes_on() && going_on.as_of(at(10)).goes_on() && !going_on.as_of(at(9)).goes_on());
        assert!(run(Some(10), Some(30)).as_of(at(29)).goes_on());
        assert!(!run(Some(10), Some(30)).as_of(at(30)).goes_on());
    }

    #[test]
    fn an_end_before_the_start_counts_nothing_and_is_flagged() {
        let odd = run(Some(30), Some(10));
        assert_eq!(odd.millis_within(span(0, 100), at(100)), 0);
        assert_eq!(odd.flag(), Some(Flag::CompletedBeforeStarted));
        assert_eq!(odd.as_of(at(20)), run(None, None), "before its start it isn't there");
        let without = run(None, Some(10));
        assert_eq!(without.millis_within(span(0, 100), at(100)), 0);
        assert_eq!(without.flag(), Some(Flag::CompletedWithoutStart));
        for fine in [run(Some(10), Some(10)), run(Some(10), Some(11)), run(Some(10), None), run(None, None)] {
            assert_eq!(fine.flag(), None);
        }
    }

    #[test]
    fn touches_spans_as_half_open_as_they_are() {
        let ended = run(Some(10), Some(30));
        let cases = [(0, 10, false), (0, 11, true), (29, 40, true), (30, 40, false), (12, 13, true)];
        for (start, end, touches) in cases {
            assert_eq!(ended.touches(span(start, end), at(100)), touches, "{start}..{end}");
        }
        let instantaneous = run(Some(10), Some(10));
        assert!(instantaneous.touches(span(10, 20), at(100)) && !instantaneous.touches(span(0, 10), at(100)));
        let going_on = run(Some(10), None);
        assert!(going_on.touches(span(40, 50), at(100)) && !going_on.touches(span(40, 50), at(40)));
        let backwards = run(Some(30), Some(10));
        for (start, end, touches) in [(0, 20, true), (30, 40, true), (12, 30, false), (31, 40, false)] {
            assert_eq!(backwards.touches(span(start, end), at(100)), touches, "{start}..{end}");
        }
        assert!(run(None, Some(10)).touches(span(0, 20), at(100)));
        assert!(!run(None, None).touches(span(0, 20), at(100)));
    }

    proptest! {
        #[test]
        fn the_number_of_running_jobs_has_the_same_area(
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
                    prop_assert!(millis == 0 || run.touches(*span, at(as_of)));
                }
            }
        }
    }
}

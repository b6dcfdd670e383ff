//! From the starts and ends of a job to its runs: the one rule, for `billing rate` and for the service.
//!
//! The problem: a job may start again, and machines' clocks differ, so that an end comes before its start, or without one.
//!
//! The invariant: moments apply in the order in which they happened, those of one instant in the order in which they were said;
//! in which order they are heard doesn't matter. Each end closes at most one run, and each run is closed by at most one end. A second
//! start of a run that goes on counts nothing more. An end that finds no run open is the end of the run that stays open in the end,
//! if there is one, which then has ended before it started, counts nothing and is flagged. Otherwise it is an end without a start,
//! and flagged too, unless it is one of those that need no start: a job that waits can be cancelled. Nothing is dropped that would
//! count.

use epoch::Timestamp;

/// Whether a job starts or ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It starts.
    Started,
    /// It ends as only what has run can end.
    Completed,
    /// It ends, whether it has run or not: it is cancelled, fails or is lost.
    GivenUp,
}

/// A job starts or ends.
pub trait Moment: Clone {
    /// Which of them.
    fn kind(&self) -> Kind;

    /// When.
    fn at(&self) -> Timestamp;
}

/// A run: what began it and what ended it. One of them is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair<M> {
    /// What began it.
    pub started: Option<M>,
    /// What ended it.
    pub ended: Option<M>,
    /// The job's last start, to attribute an end without a start to.
    pub last_start: Option<M>,
}

/// The runs of a job whose moments are given, those of one instant in the order in which they were said.
pub fn pair<M: Moment>(moments: impl IntoIterator<Item = M>) -> Vec<Pair<M>> {
    let mut moments: Vec<M> = moments.into_iter().collect();
    moments.sort_by_key(Moment::at);
    let (mut runs, mut without_start) = (Vec::new(), Vec::new());
    let (mut open, mut last_start): (Option<M>, Option<M>) = (None, None);
    for moment in moments {
        match (moment.kind(), open.take()) {
            (Kind::Started, None) => {
                last_start = Some(moment.clone());
                open = Some(moment);
            }
            (Kind::Started, going_on) => open = going_on,
            (Kind::Completed | Kind::GivenUp, Some(started)) => {
                runs.push(Pair { started: Some(started), ended: Some(moment), last_start: last_start.clone() });
            }
            (Kind::Completed | Kind::GivenUp, None) => without_start.push(moment),
        }
    }
    if let Some(started) = open {
        runs.push(Pair { started: Some(started), ended: without_start.pop(), last_start: last_start.clone() });
    }
    for ended in without_start {
        if ended.kind() == Kind::Completed {
            runs.push(Pair { started: None, ended: Some(ended), last_start: last_start.clone() });
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use epoch::Timestamp;
    use proptest::{collection::vec, prelude::*};

    use super::{Kind, Moment, pair};
    use crate::metering::{anomaly::Flag, run::Run};

    /// Starts as `+millis`, ends as `-millis`, ends that need no start a thousand later.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct Told(i64);

    impl Moment for Told {
        fn kind(&self) -> Kind {
            match self.0 {
                0.. => Kind::Started,
                -1_000..0 => Kind::Completed,
                _ => Kind::GivenUp,
            }
        }

        fn at(&self) -> Timestamp {
            Timestamp::from_millis(self.0.abs() % 1_000)
        }
    }

    /// Runs as start, end and flag.
    fn told(moments: &[i64]) -> Vec<(Option<i64>, Option<i64>, Option<Flag>)> {
        let mut runs = Vec::new();
        for pair in pair(moments.iter().copied().map(Told)) {
            let (started_at, ended_at) = (pair.started.map(|told| told.at()), pair.ended.map(|told| told.at()));
            let flag = Run { started_at, ended_at }.flag();
            runs.push((started_at.map(Timestamp::as_millis), ended_at.map(Timestamp::as_millis), flag));
        }
        runs
    }

    #[test]
    fn a_job_may_run_again() {
        assert_eq!(
            told(&[10, -20, 30, -40, 50]),
            [(Some(10), Some(20), None), (Some(30), Some(40), None), (Some(50), None, None),]
        );
        assert_eq!(told(&[10, 15, -20]), [(Some(10), Some(20), None)]);
        assert_eq!(told(&[]), []);
    }

    #[test]
    fn an_end_before_its_start_is_the_end_of_that_run() {
        assert_eq!(told(&[-9, 10]), [(Some(10), Some(9), Some(Flag::CompletedBeforeStarted))]);
        let without = (None, Some(9), Some(Flag::CompletedWithoutStart));
        assert_eq!(told(&[-9]), [without]);
        assert_eq!(told(&[-9, 10, -11]), [(Some(10), Some(11), None), without]);
        assert_eq!(
            told(&[-8, -9, 10]),
            [
                (Some(10), Some(9), Some(Flag::CompletedBeforeStarted)),
                (None, Some(8), Some(Flag::CompletedWithoutStart)),
            ]
        );
        assert_eq!(told(&[1, -2, -9]), [(Some(1), Some(2), None), without]);
    }

    #[test]
    fn what_needs_no_start_is_odd_without_one_only_if_it_ends_a_run() {
        assert_eq!(told(&[-1_009]), []);
        assert_eq!(told(&[1, -2, -1_009]), [(Some(1), Some(2), None)]);
        assert_eq!(told(&[10, -1_009]), [(Some(10), Some(9), Some(Flag::CompletedBeforeStarted))]);
        assert_eq!(told(&[10, -1_012]), [(Some(10), Some(12), None)]);
    }

    proptest! {
        #[test]
        fn the_order_in_which_moments_are_heard_does_not_matter(
            (moments, shuffled) in vec((1..1_000_i64, 0..3), 0..8).prop_map(|all| {
                let mut seen = std::collections::BTreeSet::new();
                let of = |(at, kind): (i64, i32)| if kind == 0 { at } else if kind == 1 { -at } else { -1_000 - at };
                all.into_iter().filter(|(at, _)| seen.insert(*at)).map(of).collect::<Vec<_>>()
            }).prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle())),
        ) {
            prop_assert_eq!(told(&moments), told(&shuffled));
        }
    }
}

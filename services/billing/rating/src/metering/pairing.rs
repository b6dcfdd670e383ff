//! Pairing of the starts and ends of a job into runs, for `billing rate` and for the service.
//!
//! A job may start again, and clocks of machines differ, so an end may precede its start or lack one. Moments
//! apply in the order of their instants, and at one instant in the order of their events; the order of
//! delivery does not matter.
//!
//! Rules: each end closes at most one run, and each run is closed by at most one end. A second start of a
//! running job is ignored. An end without an open run closes the run that stays open at last, if there is
//! one; that run has then ended before it started, counts 0 and is an anomaly. Any other end without a start
//! is an anomaly too, unless its kind needs no start, such as the cancellation of a waiting job. No moment
//! that would count is dropped.

use epoch::Timestamp;

/// The kind of a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MomentKind {
    Started,
    /// An end that requires a start.
    Completed,
    /// An end with or without a start: the job was cancelled, failed or was lost.
    Terminated,
}

/// A start or an end of a job.
pub trait Moment: Clone {
    fn kind(&self) -> MomentKind;

    fn at(&self) -> Timestamp;
}

/// A run as a pair of moments, at least one of which is present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairedRun<M> {
    pub started: Option<M>,
    pub ended: Option<M>,
    /// The last start of the job. An end without a start is attributed to its user.
    pub last_start: Option<M>,
}

/// Pairs the moments of a job. Moments of one instant must come in the order of their events.
pub fn pair_moments<M: Moment>(moments: impl IntoIterator<Item = M>) -> Vec<PairedRun<M>> {
    let mut moments: Vec<M> = moments.into_iter().collect();
    moments.sort_by_key(Moment::at);
    let (mut runs, mut without_start) = (Vec::new(), Vec::new());
    let (mut open, mut last_start): (Option<M>, Option<M>) = (None, None);
    for moment in moments {
        match (moment.kind(), open.take()) {
            (MomentKind::Started, None) => {
                last_start = Some(moment.clone());
                open = Some(moment);
            }
            (MomentKind::Started, running) => open = running,
            (MomentKind::Completed | MomentKind::Terminated, Some(started)) => {
                runs.push(PairedRun { started: Some(started), ended: Some(moment), last_start: last_start.clone() });
            }
            (MomentKind::Completed | MomentKind::Terminated, None) => without_start.push(moment),
        }
    }
    if let Some(started) = open {
        runs.push(PairedRun { started: Some(started), ended: without_start.pop(), last_start: last_start.clone() });
    }
    for ended in without_start {
        if ended.kind() == MomentKind::Completed {
            runs.push(PairedRun { started: None, ended: Some(ended), last_start: last_start.clone() });
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use epoch::Timestamp;
    use proptest::{collection::vec, prelude::*};

    use super::{Moment, MomentKind, pair_moments};
    use crate::metering::{anomaly::AnomalyKind, run::Run};

    /// A start as `+millis`, an end as `-millis`, and an end that needs no start as `-1000 - millis`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct TestMoment(i64);

    impl Moment for TestMoment {
        fn kind(&self) -> MomentKind {
            match self.0 {
                0.. => MomentKind::Started,
                -1_000..0 => MomentKind::Completed,
                _ => MomentKind::Terminated,
            }
        }

        fn at(&self) -> Timestamp {
            Timestamp::from_millis(self.0.abs() % 1_000)
        }
    }

    /// Returns runs as start, end and anomaly.
    fn paired(moments: &[i64]) -> Vec<(Option<i64>, Option<i64>, Option<AnomalyKind>)> {
        let mut runs = Vec::new();
        for pair in pair_moments(moments.iter().copied().map(TestMoment)) {
            let (started_at, ended_at) = (pair.started.map(|moment| moment.at()), pair.ended.map(|moment| moment.at()));
            let anomaly = Run { started_at, ended_at }.anomaly();
            runs.push((started_at.map(Timestamp::as_millis), ended_at.map(Timestamp::as_millis), anomaly));
        }
        runs
    }

    #[test]
    fn job_may_run_again() {
        assert_eq!(
            paired(&[10, -20, 30, -40, 50]),
            [(Some(10), Some(20), None), (Some(30), Some(40), None), (Some(50), None, None),]
        );
        assert_eq!(paired(&[10, 15, -20]), [(Some(10), Some(20), None)]);
        assert_eq!(paired(&[]), []);
    }

    #[test]
    fn end_before_its_start_closes_that_run() {
        assert_eq!(paired(&[-9, 10]), [(Some(10), Some(9), Some(AnomalyKind::CompletedBeforeStarted))]);
        let without = (None, Some(9), Some(AnomalyKind::CompletedWithoutStart));
        assert_eq!(paired(&[-9]), [without]);
        assert_eq!(paired(&[-9, 10, -11]), [(Some(10), Some(11), None), without]);
        assert_eq!(
            paired(&[-8, -9, 10]),
            [
                (Some(10), Some(9), Some(AnomalyKind::CompletedBeforeStarted)),
                (None, Some(8), Some(AnomalyKind::CompletedWithoutStart)),
            ]
        );
        assert_eq!(paired(&[1, -2, -9]), [(Some(1), Some(2), None), without]);
    }

    #[test]
    fn cancellation_is_an_anomaly_only_if_it_closes_a_run() {
        assert_eq!(paired(&[-1_009]), []);
        assert_eq!(paired(&[1, -2, -1_009]), [(Some(1), Some(2), None)]);
        assert_eq!(paired(&[10, -1_009]), [(Some(10), Some(9), Some(AnomalyKind::CompletedBeforeStarted))]);
        assert_eq!(paired(&[10, -1_012]), [(Some(10), Some(12), None)]);
    }

    proptest! {
        #[test]
        fn order_of_delivery_does_not_matter(
            (moments, shuffled) in vec((1..1_000_i64, 0..3), 0..8).prop_map(|all| {
                let mut seen = std::collections::BTreeSet::new();
                let of = |(at, kind): (i64, i32)| if kind == 0 { at } else if kind == 1 { -at } else { -1_000 - at };
                all.into_iter().filter(|(at, _)| seen.insert(*at)).map(of).collect::<Vec<_>>()
            }).prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle())),
        ) {
            prop_assert_eq!(paired(&moments), paired(&shuffled));
        }
    }
}

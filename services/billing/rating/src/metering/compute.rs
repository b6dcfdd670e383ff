//! Run time of jobs in a period.
//!
//! Invariant: run times by job, by user and by day each sum to the total. A running job counts up to `as_of`,
//! which makes the result provisional.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    calendar::{day::Day, span::Window},
    metering::{anomaly::Anomaly, level::areas, run::Run},
};

/// A run of a job, attributed to a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRun<J, U> {
    pub job: J,
    /// The user, or `None` if the job has none.
    pub user: Option<U>,
    pub run: Run,
}

/// The run time of a job for one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobUsage<J, U> {
    pub job: J,
    pub user: Option<U>,
    /// The sum over all runs, in milliseconds.
    pub run_ms: i128,
}

/// Run times in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComputeUsage<J, U> {
    /// The total of the period.
    pub run_ms: i128,
    /// Whether a running job counts only up to `as_of`.
    pub provisional: bool,
    /// Anomalies by job.
    pub anomalies: Vec<Anomaly<J>>,
    /// Run time by day, for the requested days.
    pub days: Vec<(Day, i128)>,
    /// Run time by job, for jobs with a run in the period, including runs of zero length.
    pub jobs: Vec<JobUsage<J, U>>,
    /// Run time by user of these jobs; runs without a user come first.
    pub users: Vec<(Option<U>, i128)>,
}

/// Sums up runs, each given once and in any order. `days` are the days of the window's period.
#[must_use]
pub fn compute_usage<J: Ord + Clone, U: Ord + Clone>(
    runs: &[JobRun<J, U>],
    window: Window,
    days: &[Day],
) -> ComputeUsage<J, U> {
    let (counted, as_of) = (window.counted(), window.as_of);
    let (mut anomalies, mut jobs, mut users) = (BTreeSet::new(), BTreeMap::new(), BTreeMap::new());
    let (mut running, mut provisional) = (Vec::new(), false);
    for JobRun { job, user, run } in runs {
        running.extend(run.level_changes(as_of).into_iter().flatten());
        provisional |= window.may_be_provisional() && run.as_of(as_of).is_running();
        if !run.overlaps(counted, as_of) {
            continue;
        }
        if let Some(kind) = run.as_of(as_of).anomaly() {
            anomalies.insert(Anomaly { kind, id: job.clone() });
        }
        let run_ms = run.millis_within(counted, as_of);
        *jobs.entry((job.clone(), user.clone())).or_insert(0) += run_ms;
        *users.entry(user.clone()).or_insert(0) += run_ms;
    }
    let by_day = areas(&running, days.iter().map(|day| day.span.intersect(counted)));
    ComputeUsage {
        run_ms: jobs.values().sum(),
        provisional,
        anomalies: anomalies.into_iter().collect(),
        days: days.iter().copied().zip(by_day).collect(),
        jobs: jobs.into_iter().map(|((job, user), run_ms)| JobUsage { job, user, run_ms }).collect(),
        users: users.into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use epoch::Timestamp;
    use proptest::{collection, option, prelude::*};

    use super::{JobRun, compute_usage};
    use crate::{
        calendar::{
            day::{days, zone},
            span::{Span, Window},
        },
        metering::{
            anomaly::{Anomaly, AnomalyKind},
            run::Run,
        },
    };

    const DAY: i64 = 86_400_000;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn run<J, U>(job: J, user: Option<U>, started: Option<i64>, ended: Option<i64>) -> JobRun<J, U> {
        JobRun { job, user, run: Run { started_at: started.map(at), ended_at: ended.map(at) } }
    }

    #[test]
    fn run_time_is_summed_by_job_and_by_user() {
        let runs = [
            run("b", Some("u"), Some(10), Some(30)),
            run("b", Some("u"), Some(40), None),
            run("a", Some("v"), Some(0), Some(5)),
            run("c", None, Some(90), Some(80)),
            run("d", Some("v"), None, Some(70)),
            run("later", Some("w"), Some(200), None),
        ];
        let window = Window { period: Span::new(at(0), at(100)), as_of: at(60) };
        let days = days(window.period, &zone("UTC").unwrap()).unwrap();
        let early = compute_usage(&runs, window, &days);
        assert_eq!((early.run_ms, early.provisional), (45, true));
        assert_eq!(early.anomalies, []);
        let jobs: Vec<_> = early.jobs.iter().map(|job| (job.job, job.user, job.run_ms)).collect();
        assert_eq!(jobs, [("a", Some("v"), 5), ("b", Some("u"), 40)]);

        let late = compute_usage(&runs, Window { as_of: at(1000), ..window }, &days);
        assert_eq!((late.run_ms, late.provisional), (85, false), "a running job counts up to the end of the period");
        let anomaly = |kind, id| Anomaly { kind, id };
        assert_eq!(
            late.anomalies,
            [anomaly(AnomalyKind::CompletedBeforeStarted, "c"), anomaly(AnomalyKind::CompletedWithoutStart, "d")]
        );
        assert_eq!(late.users, [(None, 0), (Some("u"), 80), (Some("v"), 5)]);
        assert_eq!(late.days.iter().map(|(_, run_ms)| *run_ms).collect::<Vec<_>>(), [85]);
    }

    proptest! {
        #[test]
        fn jobs_users_and_days_sum_to_the_total(
            runs in collection::vec(
                (0..4_u8, option::of(0..3_u8), option::of(-DAY..5 * DAY), option::of(-DAY..5 * DAY)), 0..30),
            start in 0..DAY, length in 0..4 * DAY, as_of in -DAY..6 * DAY,
        ) {
            let runs: Vec<_> =
                runs.into_iter().map(|(job, user, started, ended)| run(job, user, started, ended)).collect();
            let window = Window { period: Span::new(at(start), at(start + length)), as_of: at(as_of) };
            let days = days(window.period, &zone("America/Havana").unwrap()).unwrap();
            let usage = compute_usage(&runs, window, &days);
            prop_assert_eq!(usage.jobs.iter().map(|job| job.run_ms).sum::<i128>(), usage.run_ms);
            prop_assert_eq!(usage.users.iter().map(|(_, run_ms)| run_ms).sum::<i128>(), usage.run_ms);
            prop_assert_eq!(usage.days.iter().map(|(_, run_ms)| run_ms).sum::<i128>(), usage.run_ms);
        }
    }
}

//! From the starts and ends of a job to its runs.
//!
//! The problem: a job may start again, and machines' clocks differ, so that an end comes before its start, or without one.
//!
//! The invariant: each end closes at most one run, and each run is closed by at most one end. A second start of a run that goes
//! on counts nothing more. An end that finds no run open is the end of the run that stays open in the end, if there is one, which
//! then has ended before it started; otherwise it is an end without a start. Nothing is dropped.

use epoch::Timestamp;

use super::{compute::JobRun, runs::Run};

/// A job starts or ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobMoment<U> {
    /// It starts, for a user.
    Started {
        /// When.
        at: Timestamp,
        /// For whom.
        user: Option<U>,
    },
    /// It ends, in whatever way.
    Completed {
        /// When.
        at: Timestamp,
    },
}

/// The runs of a job whose moments are given in the order in which they apply.
pub fn runs<J: Clone, U: Clone>(job: &J, moments: impl IntoIterator<Item = JobMoment<U>>) -> Vec<JobRun<J, U>> {
    let of = |user, started_at, ended_at| JobRun { job: job.clone(), user, run: Run { started_at, ended_at } };
    let (mut runs, mut orphans) = (Vec::new(), Vec::new());
    let mut open: Option<(Timestamp, Option<U>)> = None;
    let mut last_user = None;
    for moment in moments {
        match (moment, open.take()) {
            (JobMoment::Started { at, user }, None) => {
                last_user.clone_from(&user);
                open = Some((at, user));
            }
            (JobMoment::Started { .. }, going_on) => open = going_on,
            (JobMoment::Completed { at }, Some((started_at, user))) => runs.push(of(user, Some(started_at), Some(at))),
            (JobMoment::Completed { at }, None) => orphans.push(at),
        }
    }
    if let Some((started_at, user)) = open {
        runs.push(of(user, Some(started_at), orphans.pop()));
    }
    for ended_at in orphans {
        runs.push(of(last_user.clone(), None, Some(ended_at)));
    }
    runs
}

#[cfg(test)]
mod tests {
    use epoch::Timestamp;

    use super::{JobMoment, runs};
    use crate::domain::Flag;

    /// Starts as `+millis` and ends as `-millis`; runs as start, end and flag.
    fn told(moments: &[i64]) -> Vec<(Option<i64>, Option<i64>, Option<Flag>)> {
        let at = |millis: i64| Timestamp::from_millis(millis.abs());
        let moment = |millis: &i64| match millis {
            0.. => JobMoment::Started { at: at(*millis), user: Some("u") },
            _ => JobMoment::Completed { at: at(*millis) },
        };
        let runs = runs(&"j", moments.iter().map(moment));
        let millis = |at: Option<Timestamp>| at.map(Timestamp::as_millis);
        runs.iter().map(|run| (millis(run.run.started_at), millis(run.run.ended_at), run.run.flag())).collect()
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
}

//! How a run ended, as the job service is told.

use std::{os::unix::process::ExitStatusExt, process::ExitStatus, time::Duration};

use epoch::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use crate::{interruption::Interruption, program::Exit};

/// The longest reason, in characters.
const MAX_REASON_CHARS: usize = 500;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    Succeeded,
    Failed,
    TimedOut,
    Cancelled,
}

/// All that the job service learns about the end of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    /// When the program ended.
    pub(crate) at: Timestamp,
    pub(crate) outcome: Outcome,
    pub(crate) exit_code: Option<i32>,
    pub(crate) reason: Option<String>,
    pub(crate) output_file_ids: Vec<Uuid>,
}

impl Report {
    /// A run that failed, or never began.
    pub(crate) fn failed(at: Timestamp, reason: &str) -> Self {
        Self::new(at, Outcome::Failed, None, Some(reason))
    }

    /// A run that was ended from outside.
    pub(crate) fn interrupted(at: Timestamp, interruption: Interruption) -> Self {
        match interruption {
            Interruption::Dismissed => Self::new(at, Outcome::Cancelled, None, Some("cancelled")),
            Interruption::Stopped => Self::failed(at, "runner stopped"),
        }
    }

    /// A run whose program ended at `at`, or was ended.
    pub(crate) fn of(at: Timestamp, exit: &Exit, timeout: Duration) -> Self {
        let status = match exit {
            Exit::Ended(status) => status,
            Exit::TimedOut => {
                let reason = format!("ran longer than {} ms", timeout.as_millis());
                return Self::new(at, Outcome::TimedOut, None, Some(&reason));
            }
            Exit::Interrupted(interruption) => return Self::interrupted(at, *interruption),
        };
        match status.code() {
            Some(0) => Self::new(at, Outcome::Succeeded, Some(0), None),
            Some(code) => Self::new(at, Outcome::Failed, Some(code), Some(&format!("exit code {code}"))),
            None => Self::failed(at, &killed_by(*status)),
        }
    }

    /// Something else went wrong: what succeeded otherwise has failed.
    pub(crate) fn also(&mut self, trouble: &str) {
        if self.outcome == Outcome::Succeeded {
            self.outcome = Outcome::Failed;
        }
        let reason = match self.reason.take() {
            Some(reason) => format!("{reason}; {trouble}"),
            None => trouble.to_owned(),
        };
        self.reason = Some(shortened(&reason));
    }

    fn new(at: Timestamp, outcome: Outcome, exit_code: Option<i32>, reason: Option<&str>) -> Self {
        Self { at, outcome, exit_code, reason: reason.map(shortened), output_file_ids: Vec::new() }
    }
}

/// As the job service takes it.
fn shortened(reason: &str) -> String {
    reason.chars().map(|char| if char.is_control() { ' ' } else { char }).take(MAX_REASON_CHARS).collect()
}

fn killed_by(status: ExitStatus) -> String {
    let Some(number) = status.signal() else { return "ended without an exit code".to_owned() };
    match signal_name(number) {
        Some(name) => format!("killed by signal {number} ({name})"),
        None => format!("killed by signal {number}"),
    }
}

/// The signals that have the same number on every platform, and those that programs end by.
fn signal_name(number: i32) -> Option<&'static str> {
    Some(match number {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        31 => "SIGSYS",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::ExitStatusExt, process::ExitStatus, time::Duration};

    use epoch::Timestamp;

    use super::{MAX_REASON_CHARS, Outcome, Report};
    use crate::program::Exit;

    fn of(raw_status: i32) -> Report {
        Report::of(Timestamp::default(), &Exit::Ended(ExitStatus::from_raw(raw_status)), Duration::ZERO)
    }

    #[test]
    fn the_exit_status_decides() {
        assert_eq!((of(0).outcome, of(0).exit_code, of(0).reason), (Outcome::Succeeded, Some(0), None));
        let seven = of(7 << 8);
        assert_eq!((seven.outcome, seven.exit_code), (Outcome::Failed, Some(7)));
        assert_eq!(seven.reason.as_deref(), Some("exit code 7"));
        let killed = of(9);
        assert_eq!((killed.outcome, killed.exit_code), (Outcome::Failed, None));
        assert_eq!(killed.reason.as_deref(), Some("killed by signal 9 (SIGKILL)"));
        assert_eq!(of(40).reason.as_deref(), Some("killed by signal 40"));
    }

    #[test]
    fn more_trouble_fails_a_success_and_is_added_to_a_failure() {
        let mut report = of(0);
        report.also("l\0st");
        assert_eq!((report.outcome, report.reason.as_deref()), (Outcome::Failed, Some("l st")));
        report.also(&"x".repeat(1_000));
        let reason = report.reason.unwrap();
        assert!(reason.starts_with("l st; x") && reason.len() == MAX_REASON_CHARS);
        assert_eq!(report.exit_code, Some(0), "the program itself did say that it succeeded");
    }
}

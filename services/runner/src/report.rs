//! Outcome report of an attempt.

use std::{os::unix::process::ExitStatusExt, process::ExitStatus, time::Duration};

use epoch::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use crate::{interruption::Interruption, program::ProgramExit};

/// Maximum length of a reason, in characters.
const MAX_REASON_CHARS: usize = 500;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    Succeeded,
    Failed,
    TimedOut,
    Cancelled,
}

/// The report that the runner sends to the job service at the end of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    /// Instant at which the program ended.
    pub(crate) at: Timestamp,
    pub(crate) outcome: Outcome,
    pub(crate) exit_code: Option<i32>,
    pub(crate) reason: Option<String>,
    pub(crate) output_file_ids: Vec<Uuid>,
}

impl Report {
    /// Reports a failed attempt, or one that never started.
    pub(crate) fn failed(at: Timestamp, reason: &str) -> Self {
        Self::new(at, Outcome::Failed, None, Some(reason))
    }

    /// Reports an attempt that the job service or a stop of the runner interrupted.
    pub(crate) fn interrupted(at: Timestamp, interruption: Interruption) -> Self {
        match interruption {
            Interruption::Revoked => Self::new(at, Outcome::Cancelled, None, Some("cancelled")),
            Interruption::Stopped => Self::failed(at, "runner stopped"),
        }
    }

    /// Reports the exit of a program at `at`.
    pub(crate) fn from_exit(at: Timestamp, exit: &ProgramExit, timeout: Duration) -> Self {
        let status = match exit {
            ProgramExit::Exited(status) => status,
            ProgramExit::TimedOut => {
                let reason = format!("ran longer than {} ms", timeout.as_millis());
                return Self::new(at, Outcome::TimedOut, None, Some(&reason));
            }
            ProgramExit::Interrupted(interruption) => return Self::interrupted(at, *interruption),
        };
        match status.code() {
            Some(0) => Self::new(at, Outcome::Succeeded, Some(0), None),
            Some(code) => Self::new(at, Outcome::Failed, Some(code), Some(&format!("exit code {code}"))),
            None => Self::failed(at, &signal_reason(*status)),
        }
    }

    /// Adds a failure to the reason; a success becomes a failure.
    pub(crate) fn add_failure(&mut self, failure: &str) {
        if self.outcome == Outcome::Succeeded {
            self.outcome = Outcome::Failed;
        }
        let reason = match self.reason.take() {
            Some(reason) => format!("{reason}; {failure}"),
            None => failure.to_owned(),
        };
        self.reason = Some(sanitize_reason(&reason));
    }

    fn new(at: Timestamp, outcome: Outcome, exit_code: Option<i32>, reason: Option<&str>) -> Self {
        Self { at, outcome, exit_code, reason: reason.map(sanitize_reason), output_file_ids: Vec::new() }
    }
}

/// Returns the reason without control characters, truncated to [`MAX_REASON_CHARS`]: the job service rejects others.
fn sanitize_reason(reason: &str) -> String {
    reason.chars().map(|char| if char.is_control() { ' ' } else { char }).take(MAX_REASON_CHARS).collect()
}

fn signal_reason(status: ExitStatus) -> String {
    let Some(number) = status.signal() else { return "ended without an exit code".to_owned() };
    match signal_name(number) {
        Some(name) => format!("killed by signal {number} ({name})"),
        None => format!("killed by signal {number}"),
    }
}

/// Returns the name of a signal that terminates programs, where its number is the same on all platforms.
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
    use crate::program::ProgramExit;

    fn report(raw_status: i32) -> Report {
        Report::from_exit(Timestamp::default(), &ProgramExit::Exited(ExitStatus::from_raw(raw_status)), Duration::ZERO)
    }

    #[test]
    fn exit_status_determines_the_outcome() {
        assert_eq!((report(0).outcome, report(0).exit_code, report(0).reason), (Outcome::Succeeded, Some(0), None));
        let seven = report(7 << 8);
        assert_eq!((seven.outcome, seven.exit_code), (Outcome::Failed, Some(7)));
        assert_eq!(seven.reason.as_deref(), Some("exit code 7"));
        let killed = report(9);
        assert_eq!((killed.outcome, killed.exit_code), (Outcome::Failed, None));
        assert_eq!(killed.reason.as_deref(), Some("killed by signal 9 (SIGKILL)"));
        assert_eq!(report(40).reason.as_deref(), Some("killed by signal 40"));
    }

    #[test]
    fn added_failure_fails_a_success_and_extends_the_reason() {
        let mut report = report(0);
        report.add_failure("l\0st");
        assert_eq!((report.outcome, report.reason.as_deref()), (Outcome::Failed, Some("l st")));
        report.add_failure(&"x".repeat(1_000));
        let reason = report.reason.unwrap();
        assert!(reason.starts_with("l st; x") && reason.len() == MAX_REASON_CHARS);
        assert_eq!(report.exit_code, Some(0), "the exit code of the program stays");
    }
}

//! Output: progress on stderr, results on stdout.

use std::{
    fs,
    io::{Write, stderr, stdout},
    path::Path,
    time::Duration,
};

const LOG_TAIL_LINES: usize = 15;

/// Writes a line of progress to stderr. A closed stderr is no reason to fail.
pub(crate) fn report(line: impl AsRef<str>) {
    let _ = writeln!(stderr(), "{}", line.as_ref());
}

/// Writes a line of the result to stdout. A closed stdout is no reason to fail: started servers must still be stopped.
pub(crate) fn print(line: impl AsRef<str>) {
    let _ = writeln!(stdout(), "{}", line.as_ref());
}

/// Writes the last lines of a log to stderr, indented; nothing if the log is empty or missing.
pub(crate) fn report_log_tail(log: &Path) {
    let text = String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    if lines.is_empty() {
        return;
    }
    report(format!("last lines of {}:", log.display()));
    for line in &lines[lines.len().saturating_sub(LOG_TAIL_LINES)..] {
        report(format!("  | {line}"));
    }
}

/// Formats a duration as seconds with one decimal, rounded down.
pub(crate) fn tenths(duration: Duration) -> String {
    format!("{}.{}", duration.as_secs(), duration.subsec_millis() / 100)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::tenths;

    #[test]
    fn duration_has_one_decimal() {
        assert_eq!(tenths(Duration::from_millis(61_090)), "61.0");
        assert_eq!(tenths(Duration::from_millis(990)), "0.9");
    }
}

//! The progress of a rebuild on standard error: one line that is updated on a terminal, a line every few seconds in a log.

use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

use epoch_postgres::RebuildProgress;

/// How often a log gets a line.
const LOG_INTERVAL: Duration = Duration::from_secs(5);
/// The width of the full bar, in characters.
const WIDTH: u64 = 30;

pub(super) struct ProgressBar {
    terminal: bool,
    shown: Option<Instant>,
}

impl ProgressBar {
    pub(super) fn new() -> Self {
        Self { terminal: io::stderr().is_terminal(), shown: None }
    }

    pub(super) fn show(&mut self, progress: &RebuildProgress) {
        if !self.terminal && self.shown.is_some_and(|shown| shown.elapsed() < LOG_INTERVAL) {
            return;
        }
        self.shown = Some(Instant::now());
        let (line, mut stderr) = (line(progress), io::stderr().lock());
        // A closed standard error must not stop the rebuild.
        let _ = if self.terminal { write!(stderr, "\r{line}\x1b[K") } else { writeln!(stderr, "{line}") };
        let _ = stderr.flush();
    }

    pub(super) fn finish(&self) {
        if self.terminal && self.shown.is_some() {
            eprintln!();
        }
    }
}

fn line(progress: &RebuildProgress) -> String {
    let total = progress.total.max(1);
    let filled = usize::try_from(progress.done.min(total).saturating_mul(WIDTH) / total).unwrap_or(0);
    let width = usize::try_from(WIDTH).unwrap_or(0);
    let bar = format!("{:-<width$}", "#".repeat(filled));
    let remaining = match progress.remaining() {
        Some(remaining) => {
            let seconds = remaining.as_secs();
            format!("{}:{:02}:{:02} left", seconds / 3_600, seconds / 60 % 60, seconds % 60)
        }
        None => "? left".to_owned(),
    };
    format!("[{bar}] {}/{} events, {} events/s, {remaining}", progress.done, progress.total, progress.rate())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_has_rate_and_remaining_time() {
        let progress = RebuildProgress {
            generation: 2,
            done: 1_500,
            total: 6_000,
            applied: 1_000,
            elapsed: Duration::from_millis(500),
        };
        assert_eq!(line(&progress), "[#######-----------------------] 1500/6000 events, 2000 events/s, 0:00:02 left");
        let empty = RebuildProgress { done: 0, total: 0, applied: 0, elapsed: Duration::ZERO, ..progress };
        assert_eq!(line(&empty), "[------------------------------] 0/0 events, 0 events/s, ? left");
    }
}

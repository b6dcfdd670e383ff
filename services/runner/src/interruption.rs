//! Interruptions of a running attempt.

use tokio_util::sync::CancellationToken;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interruption {
    /// The job was cancelled, or this runner lost its lease.
    Revoked,
    /// The runner is stopping.
    Stopped,
}

/// Signals that interrupt one attempt.
#[derive(Debug, Clone)]
pub(crate) struct InterruptionSignals {
    pub(crate) revoked: CancellationToken,
    pub(crate) stop: CancellationToken,
}

impl InterruptionSignals {
    pub(crate) fn new(stop: CancellationToken) -> Self {
        Self { revoked: CancellationToken::new(), stop }
    }

    /// Waits for the first signal.
    pub(crate) async fn interrupted(&self) -> Interruption {
        tokio::select! {
            biased;
            () = self.revoked.cancelled() => Interruption::Revoked,
            () = self.stop.cancelled() => Interruption::Stopped,
        }
    }

    /// Runs `work` until it ends or is interrupted.
    pub(crate) async fn run_until_interrupted<T>(&self, work: impl Future<Output = T>) -> Result<T, Interruption> {
        tokio::select! {
            biased;
            interruption = self.interrupted() => Err(interruption),
            output = work => Ok(output),
        }
    }
}

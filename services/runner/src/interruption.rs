//! Why a job is ended from outside.

use tokio_util::sync::CancellationToken;

/// Why a job is ended from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interruption {
    /// The job service says that the job was cancelled or is no longer this runner's.
    Dismissed,
    /// The runner stops.
    Stopped,
}

/// What may interrupt one job.
#[derive(Debug, Clone)]
pub(crate) struct Interruptions {
    pub(crate) dismissed: CancellationToken,
    pub(crate) stop: CancellationToken,
}

impl Interruptions {
    pub(crate) fn new(stop: CancellationToken) -> Self {
        Self { dismissed: CancellationToken::new(), stop }
    }

    /// Waits for the first one.
    pub(crate) async fn any(&self) -> Interruption {
        tokio::select! {
            biased;
            () = self.dismissed.cancelled() => Interruption::Dismissed,
            () = self.stop.cancelled() => Interruption::Stopped,
        }
    }

    /// Does `work` unless it is interrupted.
    pub(crate) async fn unless<T>(&self, work: impl Future<Output = T>) -> Result<T, Interruption> {
        tokio::select! {
            biased;
            interruption = self.any() => Err(interruption),
            done = work => Ok(done),
        }
    }
}

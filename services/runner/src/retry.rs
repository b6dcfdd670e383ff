//! Asking again.
//!
//! The invariant: only failures that may pass are repeated, after waits that grow and are random.

use epoch::retry::RetryPolicy;
use service_host::peer::PeerError;

/// Calls until there is an answer, a refusal, or no attempt left. Drop it to give up earlier.
pub(crate) async fn until_answered<T, F, Fut>(policy: RetryPolicy, mut call: F) -> Result<T, PeerError>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, PeerError>>,
{
    let mut failed = 0;
    loop {
        let error = match call().await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        failed += 1;
        if !error.is_transient() || failed >= policy.attempts {
            return Err(error);
        }
        pause(policy, failed, &error).await;
    }
}

/// Waits before the next attempt.
pub(crate) async fn pause(policy: RetryPolicy, failed: u32, error: &PeerError) {
    let wait = policy.wait(failed);
    tracing::warn!(%error, failed, wait_ms = wait.as_millis(), "call failed and is repeated");
    tokio::time::sleep(wait).await;
}

/// What went wrong, for people who know nothing of addresses inside the installation.
pub(crate) fn in_words(error: &PeerError) -> String {
    match error {
        PeerError::Refused { status, problem, .. } => {
            let said = if problem.detail.is_empty() { &problem.title } else { &problem.detail };
            format!("{}: {said}", status.as_u16())
        }
        PeerError::NoResponse { .. } | PeerError::Idle { .. } => "no answer".to_owned(),
        PeerError::Malformed { .. } | PeerError::MalformedResponse { .. } => {
            "no answer that can be understood".to_owned()
        }
    }
}

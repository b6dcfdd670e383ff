//! Retries of calls to other services.

use epoch::retry::RetryPolicy;
use service_host::peer::PeerError;

/// Repeats `call` until it succeeds, fails with a permanent error, or runs out of attempts.
///
/// Waits between attempts grow and have jitter. Drop the future to give up earlier.
pub(crate) async fn retry_transient<T, F, Fut>(policy: RetryPolicy, mut call: F) -> Result<T, PeerError>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, PeerError>>,
{
    let mut failed = 0;
    loop {
        let error = match call().await {
            Ok(response) => return Ok(response),
            Err(error) => error,
        };
        failed += 1;
        if !error.is_transient() || failed >= policy.attempts {
            return Err(error);
        }
        wait_before_retry(policy, failed, &error).await;
    }
}

/// Waits before the next attempt, after `failed` failed ones.
pub(crate) async fn wait_before_retry(policy: RetryPolicy, failed: u32, error: &PeerError) {
    let wait = policy.wait(failed);
    tracing::warn!(%error, failed, wait_ms = wait.as_millis(), "call failed; retrying");
    tokio::time::sleep(wait).await;
}

/// Returns the cause of an error for users, without internal addresses.
pub(crate) fn public_cause(error: &PeerError) -> String {
    match error {
        PeerError::Refused { status, problem, .. } => {
            let cause = if problem.detail.is_empty() { &problem.title } else { &problem.detail };
            format!("{}: {cause}", status.as_u16())
        }
        PeerError::NoResponse { .. } | PeerError::Idle { .. } => "no response".to_owned(),
        PeerError::Malformed { .. } | PeerError::MalformedResponse { .. } => "malformed response".to_owned(),
    }
}

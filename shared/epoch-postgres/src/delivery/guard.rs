//! Running a handler's code with a deadline, and with its panics as errors.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures::FutureExt;

use crate::delivery::error::HandlerError;

/// Runs `future`. A panic becomes [`HandlerError::Panicked`], an exceeded deadline [`HandlerError::TimedOut`].
pub(crate) async fn guarded<T>(
    deadline: Duration,
    future: impl Future<Output = Result<T, HandlerError>>,
) -> Result<T, HandlerError> {
    match tokio::time::timeout(deadline, AssertUnwindSafe(future).catch_unwind()).await {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let detail = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            Err(HandlerError::Panicked { detail })
        }
        Err(_) => Err(HandlerError::TimedOut { seconds: deadline.as_secs() }),
    }
}

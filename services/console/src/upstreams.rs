//! Questions of the console's own to a service.

use std::time::Duration;

use axum::{body::to_bytes, extract::Request, http::StatusCode};
use bytes::Bytes;
use service_kit::{Caller, Secrets};

use super::{Upstream, UpstreamError};
use crate::gateway::continue_trace;

impl Upstream {
    /// Asks the service as the platform's console, and reads the whole answer.
    ///
    /// # Errors
    /// [`UpstreamError`] when there is no answer in time, or one larger than `most_bytes`.
    pub(crate) async fn ask(
        &self,
        mut request: Request,
        secrets: &Secrets,
        limit: Duration,
        most_bytes: usize,
    ) -> Result<(StatusCode, Bytes), UpstreamError> {
        let unwritable =
            |error: axum::http::header::InvalidHeaderValue| UpstreamError::Answer { detail: error.to_string() };
        Caller::service("console").write_to(request.headers_mut(), secrets).map_err(unwritable)?;
        continue_trace(request.headers_mut());
        let answer = async {
            let (parts, body) = self.send(request).await?.into_parts();
            Ok((parts.status, to_bytes(body, most_bytes).await.map_err(UpstreamError::Unread)?))
        };
        tokio::time::timeout(limit, answer).await.unwrap_or(Err(UpstreamError::TooSlow { limit }))
    }
}

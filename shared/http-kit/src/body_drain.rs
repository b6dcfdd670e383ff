//! Draining of request bodies that the handler did not read to their end.
//!
//! If a server responds and closes a connection while the client is still sending, the client's system reports a broken
//! connection. A client that writes its whole body before it reads then never sees the response, e.g. the reason of a 409.
//!
//! So the response is sent at once, and the rest of the body is read and discarded: up to [`MAX_BYTES`] and for [`LIMIT`].
//! Every client gets the response if no more than that is left. For longer bodies, only a client that reads while it writes
//! is sure to get it: draining without a limit would let clients send forever. A client that waits for `100 Continue` before
//! it sends the body is not asked for it.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::Request,
    http::header::EXPECT,
    middleware::Next,
    response::Response,
};
use futures::StreamExt;
use http_body::{Frame, SizeHint};
use tokio::sync::oneshot::{self, error::TryRecvError};

const MAX_BYTES: usize = 16 * 1024 * 1024;

/// How long after the response the body is drained.
const LIMIT: Duration = Duration::from_secs(5);

/// Middleware that drains the rest of a request body after the response.
pub(crate) async fn drain_after_response(request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let (return_to, mut returned) = oneshot::channel();
    let is_sent = !request.headers().contains_key(EXPECT);
    let track = |body| Body::new(TrackedBody { body, is_sent, is_finished: false, return_to: Some(return_to) });
    let response = next.run(request.map(track)).await;
    let rest = match returned.try_recv() {
        Err(TryRecvError::Closed) => return response,
        Err(TryRecvError::Empty) => None,
        Ok(rest) => Some(rest),
    };
    let draining = async {
        let rest = match rest {
            Some(rest) => rest,
            // The body is still in use, e.g. forwarded to another process, which may drop it later.
            None => match returned.await {
                Ok(rest) => rest,
                Err(_) => return,
            },
        };
        discard(rest).await;
    };
    // The task holds the body, which keeps the connection open.
    tokio::spawn(tokio::time::timeout(LIMIT, draining));
    response
}

async fn discard(body: Body) {
    let mut chunks = body.into_data_stream();
    let mut left = MAX_BYTES;
    while let Some(Ok(chunk)) = chunks.next().await {
        let Some(rest) = left.checked_sub(chunk.len()) else { return };
        left = rest;
    }
}

/// A body that is returned when it is dropped before its end.
struct TrackedBody {
    body: Body,
    /// Whether the client sends the body, instead of waiting for `100 Continue`.
    is_sent: bool,
    is_finished: bool,
    return_to: Option<oneshot::Sender<Body>>,
}

impl HttpBody for TrackedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.is_sent = true;
        let polled = Pin::new(&mut self.body).poll_frame(context);
        self.is_finished |= matches!(polled, Poll::Ready(None | Some(Err(_))));
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for TrackedBody {
    fn drop(&mut self) {
        let is_unread = self.is_sent && !self.is_finished && !self.body.is_end_stream();
        if let Some(return_to) = self.return_to.take_if(|_| is_unread) {
            // The receiver is gone once the limit has passed.
            let _ = return_to.send(std::mem::take(&mut self.body));
        }
    }
}

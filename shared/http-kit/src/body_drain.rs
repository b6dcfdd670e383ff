//! What becomes of a body that nobody reads to its end.
//!
//! The problem: a server that answers and closes a connection on which the client is still sending makes the client's system
//! report a broken connection, and who writes before it reads never sees the answer, be it a refusal that says why.
//!
//! The invariant: the answer leaves at once; then the rest of the body is read and thrown away, up to [`MOST_BYTES`] and for
//! [`LIMIT`]. So every client reads the answer to a body of which no more is left; to a longer one, the client that reads while
//! it writes. One that reads only after it has written may see a broken connection then: reading on for as long as somebody
//! sends would let them send forever. A client that waits to be asked for its body (`Expect: 100-continue`) isn't asked.

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

/// How much is read on.
const MOST_BYTES: usize = 16 * 1024 * 1024;

/// How long after the answer somebody reads on.
const LIMIT: Duration = Duration::from_secs(5);

/// Middleware: reads on what is left of a request's body after its answer.
pub(crate) async fn after_the_answer(request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let (give_back, mut given_back) = oneshot::channel();
    let is_asked_for = !request.headers().contains_key(EXPECT);
    let lend = |body| Body::new(Lent { body, is_asked_for, is_over: false, give_back: Some(give_back) });
    let response = next.run(request.map(lend)).await;
    let rest = match given_back.try_recv() {
        Err(TryRecvError::Closed) => return response,
        Err(TryRecvError::Empty) => None,
        Ok(rest) => Some(rest),
    };
    let reading_on = async {
        let rest = match rest {
            Some(rest) => rest,
            // It is being passed on to another process, which may lose interest as well.
            None => match given_back.await {
                Ok(rest) => rest,
                Err(_) => return,
            },
        };
        discard(rest).await;
    };
    // The connection stays open for as long as the task holds the body.
    tokio::spawn(tokio::time::timeout(LIMIT, reading_on));
    response
}

async fn discard(body: Body) {
    let mut chunks = body.into_data_stream();
    let mut left = MOST_BYTES;
    while let Some(Ok(chunk)) = chunks.next().await {
        let Some(rest) = left.checked_sub(chunk.len()) else { return };
        left = rest;
    }
}

/// A body that is given back when it is dropped before its end.
struct Lent {
    body: Body,
    /// Whether the client sends it, rather than waiting to be asked.
    is_asked_for: bool,
    is_over: bool,
    give_back: Option<oneshot::Sender<Body>>,
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.is_asked_for = true;
        let polled = Pin::new(&mut self.body).poll_frame(context);
        self.is_over |= matches!(polled, Poll::Ready(None | Some(Err(_))));
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let is_left = self.is_asked_for && !self.is_over && !self.body.is_end_stream();
        if let Some(give_back) = self.give_back.take_if(|_| is_left) {
            // When it isn't awaited any more, its time is over.
            let _ = give_back.send(std::mem::take(&mut self.body));
        }
    }
}

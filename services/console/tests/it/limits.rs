//! How much at once.

use std::sync::Arc;

use axum::{
    Router,
    body::{Body, Bytes},
    routing::get,
};
use futures::{StreamExt, stream};
use tokio::sync::Notify;

use crate::support::{BOTH, Services, problem};

const FILES: &str = "/api/v1/organizations/0198c0de-0000-7000-8000-000000000001/files";

#[tokio::test]
async fn one_request_too_many_is_503_until_another_s_answer_is_sent() {
    for way in BOTH {
        let finish = Arc::new(Notify::new());
        let finishing = finish.clone();
        let download = get(async move || {
            let finishing = finishing.clone();
            let first = stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"first"))]);
            let last = stream::once(async move {
                finishing.notified().await;
                Ok(Bytes::from_static(b"last"))
            });
            Body::from_stream(first.chain(last))
        });
        let mut services = Services::new(way).file(Router::new().route("/api/v1/organizations/{org}/files", download));
        services.max_open_requests = 1;
        let world = services.door().await;
        let key = world.keys.issue("viewer");
        // Its headers have come, the end of its body hasn't.
        let open = world.get(FILES).bearer_auth(&key).send().await.unwrap();
        let refused = world.get("/api/v1/organizations").bearer_auth(&key).send().await.unwrap();
        assert_eq!(refused.headers()["retry-after"], "1");
        problem(refused, 503).await;
        finish.notify_one();
        assert_eq!(open.bytes().await.unwrap(), "firstlast");
        assert_eq!(world.status_with(&key).await, 200, "{way:?}");
    }
}

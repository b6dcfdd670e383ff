//! The limit of concurrent requests.

use std::sync::Arc;

use axum::{
    Router,
    body::{Body, Bytes},
    routing::get,
};
use futures::{StreamExt, stream};
use tokio::sync::Notify;

use crate::support::{DEPLOYMENTS, TestServices, assert_problem};

const FILES: &str = "/api/v1/organizations/0198c0de-0000-7000-8000-000000000001/files";

#[tokio::test]
async fn request_above_limit_returns_503_until_one_ends() {
    for deployment in DEPLOYMENTS {
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
        let mut services =
            TestServices::new(deployment).file(Router::new().route("/api/v1/organizations/{org}/files", download));
        services.max_open_requests = 1;
        let gateway = services.start().await;
        let key = gateway.keys.issue("viewer");
        // The response headers have arrived, the end of the body has not.
        let open = gateway.get(FILES).bearer_auth(&key).send().await.unwrap();
        let refused = gateway.get("/api/v1/organizations").bearer_auth(&key).send().await.unwrap();
        assert_eq!(refused.headers()["retry-after"], "1");
        assert_problem(refused, 503).await;
        finish.notify_one();
        assert_eq!(open.bytes().await.unwrap(), "firstlast");
        assert_eq!(gateway.status_with(&key).await, 200, "{deployment:?}");
    }
}

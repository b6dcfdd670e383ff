//! Streaming of request and response bodies.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::Request,
    http::HeaderMap,
    routing::{get, patch},
};
use futures::{StreamExt, stream};
use http_kit::server;
use reqwest::Method;
use sha2::{Digest, Sha256};
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    sync::{Notify, mpsc},
};

use crate::support::{DEPLOYMENTS, TestServices, UPLOAD};

const MIB: usize = 1024 * 1024;
const CHUNKS: usize = 32;
const FILE: &str = "/api/v1/organizations/0198c0de-0000-7000-8000-000000000001/files/1/content";

/// Returns 32 MiB in chunks of 1 MiB. The second chunk waits for `first_arrived`.
fn chunks(first_arrived: Arc<Notify>) -> impl futures::Stream<Item = Result<Bytes, std::io::Error>> {
    stream::iter(0..CHUNKS).then(move |number| {
        let first_arrived = first_arrived.clone();
        async move {
            if number == 1 {
                first_arrived.notified().await;
            }
            Ok(chunk(number))
        }
    })
}

fn chunk(number: usize) -> Bytes {
    let bytes: Vec<u8> = (0..MIB).map(|at| u8::try_from((at * 31 + number * 7) % 251).unwrap()).collect();
    bytes.into()
}

fn digest_of_all() -> String {
    let mut digest = Sha256::new();
    (0..CHUNKS).for_each(|number| digest.update(chunk(number)));
    hex::encode(digest.finalize())
}

/// Body as the upload handler received it.
#[derive(Debug, PartialEq, Eq)]
struct ReceivedUpload {
    bytes: usize,
    broken: bool,
    digest: String,
    length: Option<String>,
}

struct Receiver {
    uploads: mpsc::UnboundedSender<ReceivedUpload>,
    bytes: AtomicUsize,
    first_arrived: Arc<Notify>,
}

fn upload_route(receiver: Arc<Receiver>) -> Router {
    let upload = async move |headers: HeaderMap, request: Request| {
        let mut chunks = request.into_body().into_data_stream();
        let mut digest = Sha256::new();
        let mut broken = false;
        while let Some(chunk) = chunks.next().await {
            let Ok(chunk) = chunk else {
                broken = true;
                break;
            };
            digest.update(&chunk);
            receiver.bytes.fetch_add(chunk.len(), Ordering::SeqCst);
            receiver.first_arrived.notify_one();
        }
        let bytes = receiver.bytes.load(Ordering::SeqCst);
        let length = headers.get("content-length").map(|length| length.to_str().unwrap().to_owned());
        receiver
            .uploads
            .send(ReceivedUpload { bytes, broken, digest: hex::encode(digest.finalize()), length })
            .unwrap();
    };
    let path = "/api/v1/organizations/{org}/uploads/{upload}";
    Router::new().route(path, patch(upload)).layer(server::streaming())
}

fn receiver() -> (Arc<Receiver>, mpsc::UnboundedReceiver<ReceivedUpload>) {
    let (sender, uploads) = mpsc::unbounded_channel();
    (Arc::new(Receiver { uploads: sender, bytes: AtomicUsize::new(0), first_arrived: Arc::default() }), uploads)
}

async fn next_upload(uploads: &mut mpsc::UnboundedReceiver<ReceivedUpload>) -> ReceivedUpload {
    tokio::time::timeout(Duration::from_secs(20), uploads.recv()).await.unwrap().unwrap()
}

#[tokio::test]
async fn upload_is_streamed() {
    for deployment in DEPLOYMENTS {
        for declared in [true, false] {
            let (receiver, mut uploads) = receiver();
            let gateway = TestServices::new(deployment).file(upload_route(receiver.clone())).start().await;
            let key = gateway.keys.issue("member");
            let body = reqwest::Body::wrap_stream(chunks(receiver.first_arrived.clone()));
            let mut sending = gateway.request(Method::PATCH, UPLOAD).bearer_auth(&key).body(body);
            if declared {
                sending = sending.header("content-length", CHUNKS * MIB);
            }
            assert_eq!(sending.send().await.unwrap().status(), 200);
            let expected = ReceivedUpload {
                bytes: CHUNKS * MIB,
                broken: false,
                digest: digest_of_all(),
                length: declared.then(|| (CHUNKS * MIB).to_string()),
            };
            assert_eq!(next_upload(&mut uploads).await, expected, "{deployment:?}");
        }
    }
}

#[tokio::test]
async fn download_is_streamed() {
    for deployment in DEPLOYMENTS {
        let first_arrived = Arc::new(Notify::new());
        let arrived = first_arrived.clone();
        let content = get(async move || {
            let length = [("content-length", (CHUNKS * MIB).to_string())];
            (length, Body::from_stream(chunks(arrived.clone())))
        });
        let file = Router::new().route("/api/v1/organizations/{org}/files/{file}/content", content);
        let gateway = TestServices::new(deployment).file(file.layer(server::streaming())).start().await;
        let key = gateway.keys.issue("viewer");
        let answer = gateway.get(FILE).bearer_auth(&key).send().await.unwrap();
        assert_eq!(answer.headers()["content-length"], (CHUNKS * MIB).to_string().as_str());
        let mut received = answer.bytes_stream();
        let (mut bytes, mut digest) = (0, Sha256::new());
        while let Some(chunk) = received.next().await {
            let chunk = chunk.unwrap();
            bytes += chunk.len();
            digest.update(&chunk);
            first_arrived.notify_one();
        }
        assert_eq!(bytes, CHUNKS * MIB, "{deployment:?}");
        assert_eq!(hex::encode(digest.finalize()), digest_of_all());
    }
}

#[tokio::test]
async fn service_receives_interrupted_upload_and_error() {
    for deployment in DEPLOYMENTS {
        for reset in [false, true] {
            for framing in ["content-length: 1000000", "transfer-encoding: chunked"] {
                let (receiver, mut uploads) = receiver();
                let gateway = TestServices::new(deployment).file(upload_route(receiver.clone())).start().await;
                let key = gateway.keys.issue("member");
                let mut connection = TcpStream::connect(gateway.address).await.unwrap();
                let head =
                    format!("PATCH {UPLOAD} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n{framing}\r\n\r\n");
                connection.write_all(head.as_bytes()).await.unwrap();
                if framing.ends_with("chunked") {
                    connection.write_all(b"1ffff\r\n").await.unwrap();
                }
                connection.write_all(&[7; 70_000]).await.unwrap();
                crate::support::eventually(Duration::from_secs(10), async || {
                    receiver.bytes.load(Ordering::SeqCst) == 70_000
                })
                .await;
                if reset {
                    connection.set_zero_linger().unwrap();
                }
                drop(connection);
                let upload = next_upload(&mut uploads).await;
                assert_eq!((upload.bytes, upload.broken), (70_000, true), "{deployment:?}, reset: {reset}, {framing}");
            }
        }
    }
}

#[tokio::test]
async fn service_stops_when_client_disconnects() {
    struct DropSignal(mpsc::UnboundedSender<()>);
    impl Drop for DropSignal {
        fn drop(&mut self) {
            self.0.send(()).unwrap();
        }
    }
    for deployment in DEPLOYMENTS {
        let (dropped, mut drops) = mpsc::unbounded_channel();
        let started = Arc::new(Notify::new());
        let handler_started = started.clone();
        let content = get(async move || {
            let _signal = DropSignal(dropped.clone());
            handler_started.notify_one();
            std::future::pending::<()>().await;
        });
        let file = Router::new().route("/api/v1/organizations/{org}/files/{file}/content", content);
        let gateway = TestServices::new(deployment).file(file).start().await;
        let key = gateway.keys.issue("viewer");
        let request = tokio::spawn(gateway.get(FILE).bearer_auth(&key).send());
        started.notified().await;
        request.abort();
        tokio::time::timeout(Duration::from_secs(10), drops.recv()).await.unwrap().unwrap();
    }
}

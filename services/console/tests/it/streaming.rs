//! Bodies go through as they come.

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

use crate::support::{BOTH, Services, UPLOAD};

const MIB: usize = 1024 * 1024;
const CHUNKS: usize = 32;
const FILE: &str = "/api/v1/organizations/0198c0de-0000-7000-8000-000000000001/files/1/content";

/// 32 MiB in chunks of one, the second of which waits for `first_arrived`.
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

/// What an upload's handler saw.
#[derive(Debug, PartialEq, Eq)]
struct Upload {
    bytes: usize,
    broken: bool,
    digest: String,
    length: Option<String>,
}

struct Receiver {
    seen: mpsc::UnboundedSender<Upload>,
    bytes: AtomicUsize,
    first_arrived: Arc<Notify>,
}

fn receiving(receiver: Arc<Receiver>) -> Router {
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
        receiver.seen.send(Upload { bytes, broken, digest: hex::encode(digest.finalize()), length }).unwrap();
    };
    let path = "/api/v1/organizations/{org}/uploads/{upload}";
    Router::new().route(path, patch(upload)).layer(server::streaming())
}

fn receiver() -> (Arc<Receiver>, mpsc::UnboundedReceiver<Upload>) {
    let (seen, uploads) = mpsc::unbounded_channel();
    (Arc::new(Receiver { seen, bytes: AtomicUsize::new(0), first_arrived: Arc::default() }), uploads)
}

async fn next(uploads: &mut mpsc::UnboundedReceiver<Upload>) -> Upload {
    tokio::time::timeout(Duration::from_secs(20), uploads.recv()).await.unwrap().unwrap()
}

#[tokio::test]
async fn an_upload_arrives_while_it_is_sent() {
    for way in BOTH {
        for declared in [true, false] {
            let (receiver, mut uploads) = receiver();
            let world = Services::new(way).file(receiving(receiver.clone())).door().await;
            let key = world.keys.issue("member");
            let body = reqwest::Body::wrap_stream(chunks(receiver.first_arrived.clone()));
            let mut sending = world.request(Method::PATCH, UPLOAD).bearer_auth(&key).body(body);
            if declared {
                sending = sending.header("content-length", CHUNKS * MIB);
            }
            assert_eq!(sending.send().await.unwrap().status(), 200);
            let expected = Upload {
                bytes: CHUNKS * MIB,
                broken: false,
                digest: digest_of_all(),
                length: declared.then(|| (CHUNKS * MIB).to_string()),
            };
            assert_eq!(next(&mut uploads).await, expected, "{way:?}");
        }
    }
}

#[tokio::test]
async fn a_download_arrives_while_it_is_sent() {
    for way in BOTH {
        let first_arrived = Arc::new(Notify::new());
        let arrived = first_arrived.clone();
        let content = get(async move || {
            let length = [("content-length", (CHUNKS * MIB).to_string())];
            (length, Body::from_stream(chunks(arrived.clone())))
        });
        let file = Router::new().route("/api/v1/organizations/{org}/files/{file}/content", content);
        let world = Services::new(way).file(file.layer(server::streaming())).door().await;
        let key = world.keys.issue("viewer");
        let answer = world.get(FILE).bearer_auth(&key).send().await.unwrap();
        assert_eq!(answer.headers()["content-length"], (CHUNKS * MIB).to_string().as_str());
        let mut received = answer.bytes_stream();
        let (mut bytes, mut digest) = (0, Sha256::new());
        while let Some(chunk) = received.next().await {
            let chunk = chunk.unwrap();
            bytes += chunk.len();
            digest.update(&chunk);
            first_arrived.notify_one();
        }
        assert_eq!(bytes, CHUNKS * MIB, "{way:?}");
        assert_eq!(hex::encode(digest.finalize()), digest_of_all());
    }
}

#[tokio::test]
async fn the_service_sees_all_that_came_of_a_broken_upload_and_that_it_broke() {
    for way in BOTH {
        for reset in [false, true] {
            for framing in ["content-length: 1000000", "transfer-encoding: chunked"] {
                let (receiver, mut uploads) = receiver();
                let world = Services::new(way).file(receiving(receiver.clone())).door().await;
                let key = world.keys.issue("member");
                let mut connection = TcpStream::connect(world.address).await.unwrap();
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
                let upload = next(&mut uploads).await;
                assert_eq!((upload.bytes, upload.broken), (70_000, true), "{way:?}, reset: {reset}, {framing}");
            }
        }
    }
}

#[tokio::test]
async fn a_service_stops_working_for_a_client_that_has_gone() {
    struct Gone(mpsc::UnboundedSender<()>);
    impl Drop for Gone {
        fn drop(&mut self) {
            self.0.send(()).unwrap();
        }
    }
    for way in BOTH {
        let (gone, mut noticed) = mpsc::unbounded_channel();
        let begun = Arc::new(Notify::new());
        let began = begun.clone();
        let content = get(async move || {
            let _gone = Gone(gone.clone());
            began.notify_one();
            std::future::pending::<()>().await;
        });
        let file = Router::new().route("/api/v1/organizations/{org}/files/{file}/content", content);
        let world = Services::new(way).file(file).door().await;
        let key = world.keys.issue("viewer");
        let asking = tokio::spawn(world.get(FILE).bearer_auth(&key).send());
        begun.notified().await;
        asking.abort();
        tokio::time::timeout(Duration::from_secs(10), noticed.recv()).await.unwrap().unwrap();
    }
}

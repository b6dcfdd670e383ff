//! Limits, broken connections, body draining and graceful shutdown over real sockets.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::Request,
    routing::{get, put},
};
use futures::StreamExt;
use http_kit::{
    Problem,
    server::{self, Limits},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Notify, mpsc},
};
use tokio_util::sync::CancellationToken;

use crate::support::{assert_problem, jobs, member, request, send};

const MIB: usize = 1024 * 1024;

/// The part of an upload that reached the handler.
#[derive(Debug, PartialEq, Eq)]
struct Upload {
    bytes: usize,
    broken: bool,
}

fn uploads(seen: mpsc::UnboundedSender<Upload>, so_far: Arc<AtomicUsize>) -> Router {
    let upload = async move |request: Request| {
        let mut chunks = request.into_body().into_data_stream();
        let mut upload = Upload { bytes: 0, broken: false };
        while let Some(chunk) = chunks.next().await {
            let Ok(chunk) = chunk else {
                upload.broken = true;
                break;
            };
            upload.bytes += chunk.len();
            so_far.store(upload.bytes, Ordering::SeqCst);
        }
        // Stands for the handler's write to a store after the last chunk.
        tokio::time::sleep(Duration::from_millis(20)).await;
        seen.send(upload).unwrap();
    };
    let layer = server::streaming_with_idle_limit(Duration::from_millis(500));
    server::finish(Router::new().route("/upload", put(upload)).layer(layer))
}

async fn serving(router: Router) -> (std::net::SocketAddr, CancellationToken, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let server = server::serve_with_drain_limit(listener, router, stop.clone(), Duration::from_millis(300));
    (address, stop, tokio::spawn(async { server.await.unwrap() }))
}

#[tokio::test]
async fn broken_upload_delivers_all_bytes_and_the_error() {
    for reset in [false, true] {
        let (sender, mut seen) = mpsc::unbounded_channel();
        let so_far = Arc::new(AtomicUsize::new(0));
        let (address, _stop, _server) = serving(uploads(sender, so_far.clone())).await;
        let mut connection = TcpStream::connect(address).await.unwrap();
        connection.write_all(b"PUT /upload HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n").await.unwrap();
        connection.write_all(&[7; 70_000]).await.unwrap();
        while so_far.load(Ordering::SeqCst) < 70_000 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if reset {
            connection.set_zero_linger().unwrap();
        }
        drop(connection);
        let upload = tokio::time::timeout(Duration::from_secs(5), seen.recv()).await.unwrap().unwrap();
        assert_eq!(upload, Upload { bytes: 70_000, broken: true }, "reset: {reset}");
    }
}

#[tokio::test]
async fn idle_upload_counts_as_broken() {
    let (sender, mut seen) = mpsc::unbounded_channel();
    let (address, _stop, _server) = serving(uploads(sender, Arc::default())).await;
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(b"PUT /upload HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n1234567").await.unwrap();
    let upload = tokio::time::timeout(Duration::from_secs(5), seen.recv()).await.unwrap().unwrap();
    assert_eq!(upload, Upload { bytes: 7, broken: true });
}

#[tokio::test]
async fn streaming_route_has_no_size_limit() {
    let (sender, mut seen) = mpsc::unbounded_channel();
    let (address, _stop, _server) = serving(uploads(sender, Arc::default())).await;
    let sent = reqwest::Client::builder().no_proxy().build().unwrap();
    let sent = sent.put(format!("http://{address}/upload")).body(vec![7; 5_000_000]).send().await.unwrap();
    assert_eq!(sent.status(), 200);
    assert_eq!(seen.recv().await, Some(Upload { bytes: 5_000_000, broken: false }));
}

#[tokio::test]
async fn sender_of_a_refused_body_reads_the_response() {
    let (address, _stop, _server) = serving(jobs()).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let sent = client.post(format!("http://{address}/api/v1/plain-json")).body(vec![b'7'; 8_000_000]).send();
    assert_eq!(sent.await.unwrap().status(), 413);
}

/// Responds 409 without reading the body.
fn refusing() -> Router {
    let refuse = put(async || Problem::conflict("wrong offset"));
    server::finish(Router::new().route("/upload", refuse).layer(server::streaming()))
}

#[tokio::test]
async fn response_to_any_body_reaches_a_duplex_client() {
    let (address, _stop, _server) = serving(refusing()).await;
    for path in ["upload", "nowhere"] {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let sent = client.put(format!("http://{address}/{path}")).body(vec![7; 64 * MIB]).send().await.unwrap();
        assert_eq!(sent.status(), if path == "upload" { 409 } else { 404 });
    }
}

#[tokio::test]
async fn response_reaches_a_client_that_writes_first() {
    let (address, _stop, _server) = serving(refusing()).await;
    let mut connection = TcpStream::connect(address).await.unwrap();
    for last in [false, true] {
        let close = if last { "connection: close\r\n" } else { "" };
        let head = format!("PUT /upload HTTP/1.1\r\nhost: x\r\n{close}content-length: {}\r\n\r\n", 15 * MIB);
        connection.write_all(head.as_bytes()).await.unwrap();
        connection.write_all(&vec![7; 15 * MIB]).await.unwrap();
    }
    let mut responses = String::new();
    connection.read_to_string(&mut responses).await.unwrap();
    assert_eq!(responses.matches("HTTP/1.1 409 ").count(), 2, "{responses}");
}

#[tokio::test]
async fn draining_of_a_body_is_bounded() {
    let (address, _stop, _server) = serving(refusing()).await;
    let mut connection = TcpStream::connect(address).await.unwrap();
    let head = format!("PUT /upload HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", 1024 * MIB);
    connection.write_all(head.as_bytes()).await.unwrap();
    let mut written = 0;
    while connection.write_all(&vec![7; MIB]).await.is_ok() {
        written += 1;
        assert!(written < 128, "{written} MiB were drained");
    }
}

#[tokio::test]
async fn client_awaiting_100_continue_gets_final_response() {
    let (address, _stop, _server) = serving(refusing()).await;
    let mut connection = TcpStream::connect(address).await.unwrap();
    let head = "PUT /upload HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\nexpect: 100-continue\r\n\r\n";
    connection.write_all(head.as_bytes()).await.unwrap();
    let mut response = String::new();
    connection.read_to_string(&mut response).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 409 "), "{response}");
}

#[tokio::test]
async fn slow_response_is_503() {
    let slow = get(async || tokio::time::sleep(Duration::from_secs(60)).await);
    let limits = Limits { time: Duration::from_millis(20), ..Limits::default() };
    let router = server::finish(Router::new().route("/slow", slow).layer(server::bounded_to(limits)));
    let late = send(router, Request::get("/slow").body(Body::empty()).unwrap()).await;
    assert_problem(&late, 503, "/problems/timed-out");
    assert!(late.headers.contains_key("retry-after"));
}

#[tokio::test]
async fn shutdown_finishes_open_and_refuses_new_requests() {
    let started = Arc::new(Notify::new());
    let notify_started = started.clone();
    let slow = get(async move || {
        notify_started.notify_one();
        tokio::time::sleep(Duration::from_millis(50)).await;
        "done"
    });
    let (address, stop, server) = serving(Router::new().route("/slow", slow)).await;
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    started.notified().await;
    stop.cancel();
    let mut text = String::new();
    connection.read_to_string(&mut text).await.unwrap();
    assert!(text.ends_with("done"), "{text}");
    server.await.unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn shutdown_drain_is_bounded() {
    let started = Arc::new(Notify::new());
    let notify_started = started.clone();
    let endless = get(async move || {
        notify_started.notify_one();
        std::future::pending::<()>().await;
    });
    let (address, stop, server) = serving(Router::new().route("/endless", endless)).await;
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(b"GET /endless HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    started.notified().await;
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(5), server).await.unwrap().unwrap();
}

#[tokio::test]
async fn sigterm_is_received() {
    let mut received = Box::pin(server::shutdown_signal());
    // The first poll installs the handlers; without them the signal would end the tests.
    assert!(futures::poll!(&mut received).is_pending());
    let sent = tokio::process::Command::new("kill").args(["-TERM", &std::process::id().to_string()]).status();
    assert!(sent.await.unwrap().success());
    assert_eq!(received.await.unwrap(), "SIGTERM");
}

#[tokio::test]
async fn problem_has_the_trace_id_of_its_request() {
    let headers = [("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")];
    let lost = request(&member(uuid::Uuid::nil()), "GET", "/nowhere", &headers, "");
    assert_eq!(send(jobs(), lost).await.body["trace_id"], "0af7651916cd43dd8448eb211c80319c");
}

//! Broken connections: on a real socket, and as a request that the server drops in the middle of its body.

use futures::StreamExt;
use http_kit::server;
use service_host::{
    health::Health,
    process::{Roles, start},
    supervisor::Supervisor,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::support::{FileUnderTest, MIB, Uploads, content};

/// Starts a PATCH of `length` bytes at offset 0 on a real connection, and sends the bytes `sent`.
async fn start_patch(
    uploads: &Uploads,
    address: std::net::SocketAddr,
    upload: Uuid,
    length: usize,
    sent: &[u8],
) -> TcpStream {
    let mut headers = axum::http::HeaderMap::new();
    uploads.member.write_to(&mut headers, uploads.service.secrets()).unwrap();
    let mut request = format!(
        "PATCH {} HTTP/1.1\r\nhost: test\r\ntus-resumable: 1.0.0\r\nupload-offset: 0\r\n\
         content-type: application/offset+octet-stream\r\ncontent-length: {length}\r\n",
        uploads.path(&format!("uploads/{upload}"))
    );
    for (name, value) in &headers {
        request.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap()));
    }
    request.push_str("\r\n");
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(request.as_bytes()).await.unwrap();
    connection.write_all(sent).await.unwrap();
    connection.flush().await.unwrap();
    connection
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disconnect_and_shutdown_keep_received_bytes() {
    let uploads = Uploads::start().await;
    let stop = CancellationToken::new();
    let mut supervisor = Supervisor::new(stop.clone());
    let roles = Roles { serve: true, project: false, relay: false };
    let running =
        start::<FileUnderTest>(&uploads.service.shared, roles, &mut supervisor, &Health::new()).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = server::finish(running.router.clone());
    let serving = tokio::spawn(server::serve(listener, router, stop.clone()));
    let bytes = content(8 * MIB);
    // More than one write and less than a part: no part is recorded while the connection is open.
    let half = &bytes[..5 * MIB + MIB / 2];
    let write_started = |upload| {
        let objects = uploads.objects(upload);
        async move { (!objects.is_empty()).then_some(()) }
    };

    let upload = uploads.create("a", bytes.len()).await;
    let connection = start_patch(&uploads, address, upload, bytes.len(), half).await;
    uploads.service.eventually(|| write_started(upload)).await;
    assert_eq!(uploads.offset(upload).await, 0);
    connection.set_zero_linger().unwrap();
    drop(connection);
    let recorded = || async { Some(uploads.offset(upload).await).filter(|at| *at > 0) };
    let received = uploads.service.eventually(recorded).await;
    assert!((5 * MIB..=half.len()).contains(&received), "{received}");
    uploads.patch(upload, received, bytes[received..].to_vec()).send().await.is(204);
    assert!(uploads.content(upload).await.expect(200).bytes == bytes, "the content differs");

    let upload = uploads.create("b", bytes.len()).await;
    let mut connection = start_patch(&uploads, address, upload, bytes.len(), half).await;
    uploads.service.eventually(|| write_started(upload)).await;
    stop.cancel();
    let mut answer = vec![0; 12];
    connection.read_exact(&mut answer).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 503");
    drop(connection);
    serving.await.unwrap().unwrap();
    let received = uploads.offset(upload).await;
    assert!((5 * MIB..=half.len()).contains(&received), "{received}");
    uploads.patch(upload, received, bytes[received..].to_vec()).send().await.is(204);
    assert!(uploads.content(upload).await.expect(200).bytes == bytes, "the content differs");
    supervisor.shutdown(std::time::Duration::from_secs(5)).await;
    drop(running);
    uploads.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_request_keeps_received_bytes() {
    let uploads = Uploads::start().await;
    let bytes = content(1000);
    let upload = uploads.create("a", bytes.len()).await;
    let (reached, in_the_middle) = tokio::sync::oneshot::channel::<()>();
    let (break_off, broken) = tokio::sync::oneshot::channel::<()>();
    let first = bytes[..400].to_vec();
    let chunks = futures::stream::once(async move { Ok(first) }).chain(futures::stream::once(async move {
        reached.send(()).unwrap();
        broken.await.unwrap();
        Err(std::io::Error::other("connection reset by peer"))
    }));
    let request = uploads.patch(upload, 0, axum::body::Body::from_stream(chunks)).send();
    tokio::select! {
        answer = request => panic!("answered {} in the middle of its body", answer.status),
        reached = in_the_middle => reached.unwrap(),
    }
    // The request is dropped here, and its connection breaks.
    break_off.send(()).unwrap();
    uploads.service.eventually(|| async { (uploads.offset(upload).await == 400).then_some(()) }).await;
    uploads.patch(upload, 400, bytes[400..].to_vec()).send().await.is(204);
    assert_eq!(uploads.content(upload).await.expect(200).bytes, bytes);
    uploads.close().await;
}

//! Services that are unreachable or break off.

use axum::{Router, routing::patch};
use console::{Console, Settings, Upstream, Upstreams};
use http_kit::{Problem, server};
use reqwest::Method;
use service_host::health::Health;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::support::{
    ADMIN_KEY, DEPLOYMENTS, Deployment, TestServices, UPLOAD, assert_problem, client, echo_service, secrets, serve,
};

const FILES: &str = "/api/v1/organizations/0198c0de-0000-7000-8000-000000000001/files";

#[tokio::test]
async fn unreachable_service_returns_503_alone() {
    let mut services = TestServices::new(Deployment::Separate);
    services.down.push("file");
    let gateway = services.start().await;
    let key = gateway.keys.issue("member");
    for method in [Method::GET, Method::POST] {
        let answer = gateway.request(method, FILES).bearer_auth(&key).body("some").send().await.unwrap();
        assert_eq!(answer.headers()["retry-after"], "1");
        assert_eq!(assert_problem(answer, 503).await["type"], "/problems/unavailable");
    }
    assert_eq!(gateway.status_with(&key).await, 200);
}

#[tokio::test]
async fn interrupted_response_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await.unwrap();
        let _ = connection.read(&mut [0; 4096]).await.unwrap();
        connection.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n").await.unwrap();
    });
    let broken = Upstream::http(format!("http://{address}").parse().unwrap()).unwrap();
    let other = || Upstream::local(echo_service("other"), Default::default());
    let upstreams = Upstreams { organization: other(), job: other(), file: broken, billing: other(), runner: other() };
    let settings = Settings {
        secrets: secrets(),
        admin_key: ADMIN_KEY.parse().unwrap(),
        upstreams,
        health: Health::new(),
        runs_on: Vec::new(),
        max_open_requests: 10,
    };
    let (address, _server) = serve(server::finish(Console::router(settings))).await;
    let answer = client().get(format!("http://{address}{FILES}")).bearer_auth(ADMIN_KEY).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.bytes().await.is_err());
}

#[tokio::test]
async fn early_rejection_of_large_body_arrives() {
    let refuse = patch(async || Problem::conflict("wrong offset"));
    let refuse = Router::new().route("/api/v1/organizations/{org}/uploads/{upload}", refuse);
    for deployment in DEPLOYMENTS {
        let gateway = TestServices::new(deployment).file(refuse.clone().layer(server::streaming())).start().await;
        let key = gateway.keys.issue("member");
        for mebibytes in [8, 64] {
            let sending = || gateway.request(Method::PATCH, UPLOAD).body(vec![7; mebibytes << 20]);
            assert_problem(sending().bearer_auth(&key).send().await.unwrap(), 409).await;
            assert_problem(sending().send().await.unwrap(), 401).await;
        }
    }
}

#[tokio::test]
async fn expect_continue_is_rejected_before_body() {
    let gateway = TestServices::new(Deployment::Separate).start().await;
    let mut connection = TcpStream::connect(gateway.address).await.unwrap();
    let head = format!("PATCH {UPLOAD} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\nexpect: 100-continue\r\n\r\n");
    connection.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
}

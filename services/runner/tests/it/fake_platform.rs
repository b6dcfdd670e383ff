//! Fakes of the job and file services on one socket.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::Arc,
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, Method, Request, StatusCode, Uri},
    response::{IntoResponse, Response},
    routing::{get, head, post},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use futures::StreamExt;
use http_kit::{Caller, Role, Secrets};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch};
use uuid::Uuid;

pub(crate) const ORGANIZATION: Uuid = Uuid::from_u128(0xA);

pub(crate) fn secrets() -> Secrets {
    Secrets::new("a secret for the tests").unwrap()
}

/// A recorded call about a job.
#[derive(Debug, Clone)]
pub(crate) struct JobCall {
    pub(crate) job: Uuid,
    pub(crate) step: String,
    pub(crate) key: String,
    pub(crate) body: Value,
}

#[derive(Debug, Clone)]
pub(crate) struct Upload {
    pub(crate) key: String,
    pub(crate) length: usize,
    pub(crate) metadata: HashMap<String, String>,
    pub(crate) bytes: Vec<u8>,
    /// Offset of each accepted PATCH.
    pub(crate) patch_offsets: Vec<usize>,
}

/// Recorded requests and programmed responses.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) queue: VecDeque<Value>,
    pub(crate) claims: usize,
    pub(crate) calls: Vec<JobCall>,
    /// Heartbeats respond `continue: false`.
    pub(crate) revoked: bool,
    /// Number of 503 responses to the next calls of a step.
    pub(crate) unavailable: HashMap<&'static str, usize>,
    /// Steps that get a 409.
    pub(crate) rejected_steps: Vec<&'static str>,
    pub(crate) files: HashMap<Uuid, (String, Vec<u8>)>,
    pub(crate) uploads: HashMap<Uuid, Upload>,
    /// The next PATCH requests break after so many bytes, in this order.
    pub(crate) upload_breaks: VecDeque<usize>,
    /// File names that get a 413.
    pub(crate) rejected_files: Vec<&'static str>,
    /// Number of the next file requests that meet a lagging read model.
    pub(crate) lagging_reads: usize,
    /// Downloads block while this is set.
    pub(crate) downloads_held: bool,
    /// Number of the next downloads that break in the middle.
    pub(crate) broken_downloads: usize,
}

impl World {
    pub(crate) fn calls_of(&self, job: Uuid, step: &str) -> Vec<&JobCall> {
        self.calls.iter().filter(|call| call.job == job && call.step == step).collect()
    }

    pub(crate) fn output(&self, name: &str) -> Option<&Upload> {
        self.uploads.values().find(|upload| upload.metadata["filename"] == name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        let output = self.output(name).unwrap_or_else(|| panic!("no output {name}: {:?}", self.uploads.keys()));
        String::from_utf8(output.bytes.clone()).unwrap()
    }
}

#[derive(Clone)]
pub(crate) struct Platform {
    world: Arc<watch::Sender<World>>,
}

impl Platform {
    pub(crate) fn new() -> Self {
        Self { world: Arc::new(watch::Sender::new(World::default())) }
    }

    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        let mut result = None;
        self.world.send_modify(|world| result = Some(change(world)));
        result.unwrap()
    }

    pub(crate) fn inspect<T>(&self, inspect: impl FnOnce(&World) -> T) -> T {
        inspect(&self.world.borrow())
    }

    /// Waits until the condition holds.
    pub(crate) async fn until(&self, description: &str, condition: impl Fn(&World) -> bool) {
        let mut world = self.world.subscribe();
        let waited = tokio::time::timeout(super::harness::LIMIT, world.wait_for(|world| condition(world))).await;
        let calls = || self.inspect(|world| format!("{:#?}", world.calls));
        assert!(waited.is_ok(), "timed out waiting for {description}\n{}", calls());
    }

    /// Adds a complete file.
    pub(crate) fn add_file(&self, name: &str, bytes: &[u8]) -> Uuid {
        let id = Uuid::now_v7();
        self.change(|world| world.files.insert(id, (name.to_owned(), bytes.to_owned())));
        id
    }

    /// Queues a job.
    pub(crate) fn add_job(&self, command: &[&str], timeout_ms: u64, files: &[Uuid]) -> Uuid {
        let id = Uuid::now_v7();
        let job = json!({
            "job_id": id, "organization_id": ORGANIZATION, "name": "a job", "command": command,
            "timeout_ms": timeout_ms, "input_file_ids": files, "version": 3,
        });
        self.change(|world| world.queue.push_back(job));
        id
    }

    /// Waits for the report of the job and returns it.
    pub(crate) async fn finished(&self, job: Uuid) -> Value {
        self.until("the report of the job", |world| !world.calls_of(job, "finished").is_empty()).await;
        self.inspect(|world| world.calls_of(job, "finished")[0].body.clone())
    }

    pub(crate) async fn serve(&self, listener: TcpListener) -> SocketAddr {
        let address = listener.local_addr().unwrap();
        let scoped = "/api/v1/organizations/{org}";
        let router = Router::new()
            .route("/internal/v1/job/claims", post(claim))
            .route("/internal/v1/job/jobs/{job}/{step}", post(record_job_call))
            .route(&format!("{scoped}/files/{{file}}"), get(file))
            .route(&format!("{scoped}/files/{{file}}/content"), get(content))
            .route(&format!("{scoped}/uploads"), post(create_upload))
            .route(&format!("{scoped}/uploads/{{upload}}"), head(offset).patch(append))
            .with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        address
    }
}

fn caller(headers: &HeaderMap) -> Caller {
    let caller = Caller::from_headers(headers, &secrets()).unwrap();
    assert_eq!((caller.role, caller.actor.as_str()), (Role::Service, "service:runner"));
    caller
}

fn header(headers: &HeaderMap, name: &str) -> String {
    let value = headers.get(name).unwrap_or_else(|| panic!("no header {name} in {headers:?}"));
    value.to_str().unwrap().to_owned()
}

async fn claim(State(platform): State<Platform>, headers: HeaderMap, Json(body): Json<Value>) -> Response {
    caller(&headers);
    header(&headers, "idempotency-key");
    assert!(body["machine_id"].is_string());
    assert_eq!(body["machine_type"], "test-1");
    let wait = std::time::Duration::from_millis(body["wait_ms"].as_u64().unwrap());
    platform.change(|world| world.claims += 1);
    let mut world = platform.world.subscribe();
    if tokio::time::timeout(wait, world.wait_for(|world| !world.queue.is_empty())).await.is_err() {
        return StatusCode::NO_CONTENT.into_response();
    }
    match platform.change(|world| world.queue.pop_front()) {
        Some(job) => Json(job).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    }
}

async fn record_job_call(
    State(platform): State<Platform>,
    Path((job, step)): Path<(Uuid, String)>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    assert_eq!(caller(&headers).organization, Some(ORGANIZATION));
    let key = header(&headers, "idempotency-key");
    platform.change(|world| {
        world.calls.push(JobCall { job, step: step.clone(), key, body });
        if let Some(left) = world.unavailable.get_mut(step.as_str()).filter(|left| **left > 0) {
            *left -= 1;
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
        if world.rejected_steps.contains(&step.as_str()) {
            return StatusCode::CONFLICT.into_response();
        }
        match step.as_str() {
            "heartbeat" => Json(json!({ "continue": !world.revoked })).into_response(),
            "started" | "finished" => Json(json!({})).into_response(),
            other => panic!("no such step: {other}"),
        }
    })
}

async fn file(
    State(platform): State<Platform>,
    Path((org, file)): Path<(Uuid, Uuid)>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    assert_eq!((caller(&headers).organization, org), (Some(ORGANIZATION), ORGANIZATION));
    platform.change(|world| {
        if world.lagging_reads > 0 {
            world.lagging_reads -= 1;
            let waits = uri.query() == Some("min_version=1");
            return if waits { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::NOT_FOUND }.into_response();
        }
        match world.files.get(&file) {
            Some((name, bytes)) => Json(json!({ "id": file, "name": name, "bytes": bytes.len() })).into_response(),
            None => StatusCode::NOT_FOUND.into_response(),
        }
    })
}

async fn content(
    State(platform): State<Platform>,
    Path((_, file)): Path<(Uuid, Uuid)>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    assert_eq!(caller(&headers).organization, Some(ORGANIZATION));
    if !platform.inspect(|world| world.files.contains_key(&file)) {
        return StatusCode::NOT_FOUND.into_response();
    }
    if method == Method::HEAD {
        return StatusCode::OK.into_response();
    }
    platform.until("downloads are let go", |world| !world.downloads_held).await;
    let (bytes, breaks) = platform.change(|world| {
        let breaks = world.broken_downloads > 0;
        world.broken_downloads -= usize::from(breaks);
        (world.files[&file].1.clone(), breaks)
    });
    let length = [("content-length", bytes.len().to_string())];
    if breaks {
        let half = bytes[..bytes.len() / 2].to_vec();
        let parts = futures::stream::iter([Ok(half), Err(std::io::Error::other("broken"))]);
        return (length, Body::from_stream(parts)).into_response();
    }
    (length, bytes).into_response()
}

async fn create_upload(State(platform): State<Platform>, Path(org): Path<Uuid>, headers: HeaderMap) -> Response {
    assert_eq!((caller(&headers).organization, org), (Some(ORGANIZATION), ORGANIZATION));
    assert_eq!(header(&headers, "tus-resumable"), "1.0.0");
    let pair = |pair: &str| {
        let (key, value) = pair.split_once(' ').unwrap();
        (key.to_owned(), String::from_utf8(STANDARD.decode(value).unwrap()).unwrap())
    };
    let metadata: HashMap<_, _> = header(&headers, "upload-metadata").split(',').map(pair).collect();
    let id = Uuid::now_v7();
    platform.change(|world| {
        let name = metadata["filename"].as_str();
        assert!(!name.contains(['/', '\\']), "the file service rejects paths");
        if world.rejected_files.contains(&name) {
            return StatusCode::PAYLOAD_TOO_LARGE.into_response();
        }
        let length = header(&headers, "upload-length").parse().unwrap();
        let key = header(&headers, "idempotency-key");
        world.uploads.insert(id, Upload { key, length, metadata, bytes: Vec::new(), patch_offsets: Vec::new() });
        let location = format!("/api/v1/organizations/{org}/uploads/{id}");
        (StatusCode::CREATED, [("location", location), ("tus-resumable", "1.0.0".to_owned())]).into_response()
    })
}

async fn offset(State(platform): State<Platform>, Path((_, upload)): Path<(Uuid, Uuid)>) -> Response {
    let offset = platform.inspect(|world| world.uploads[&upload].bytes.len());
    [("upload-offset", offset.to_string())].into_response()
}

async fn append(
    State(platform): State<Platform>,
    Path((_, upload)): Path<(Uuid, Uuid)>,
    request: Request<Body>,
) -> Response {
    let headers = request.headers();
    assert_eq!(caller(headers).organization, Some(ORGANIZATION));
    assert_eq!(header(headers, "content-type"), "application/offset+octet-stream");
    let from: usize = header(headers, "upload-offset").parse().unwrap();
    let announced: usize = header(headers, "content-length").parse().unwrap();
    let (breaks_after, at_offset) = platform.change(|world| {
        let stored = world.uploads.get_mut(&upload).unwrap();
        stored.patch_offsets.push(from);
        (world.upload_breaks.pop_front(), stored.bytes.len() == from)
    });
    if !at_offset {
        return StatusCode::CONFLICT.into_response();
    }
    let mut chunks = request.into_body().into_data_stream();
    let mut seen = 0;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.unwrap();
        let kept = breaks_after.map_or(chunk.len(), |limit| chunk.len().min(limit - seen));
        platform.change(|world| world.uploads.get_mut(&upload).unwrap().bytes.extend(&chunk[..kept]));
        seen += kept;
        if breaks_after == Some(seen) {
            // Ends the connection's task, which closes the connection without a response.
            std::panic::resume_unwind(Box::new("intended break of the connection"));
        }
    }
    assert_eq!(seen, announced);
    (StatusCode::NO_CONTENT, [("upload-offset", (from + seen).to_string())]).into_response()
}

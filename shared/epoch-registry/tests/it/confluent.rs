//! A test server with the part of Confluent's registry API that the buses use. Its schemas survive its restarts.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    routing::{get, post},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// The first id that it assigns.
pub(crate) const FIRST_ID: usize = 100_001;

type Response = (StatusCode, Json<Value>);

#[derive(Default)]
pub(crate) struct RegistryState {
    /// Subjects and schemas in the order of their ids.
    pub(crate) schemas: Vec<(String, Value)>,
    /// The number of registration requests.
    pub(crate) registrations: usize,
    /// The number of schema requests.
    pub(crate) lookups: usize,
    /// Rejects every new schema as incompatible.
    pub(crate) rejects_new_schemas: bool,
}

/// A registry that tests stop and start.
pub(crate) struct RegistryServer {
    state: Arc<Mutex<RegistryState>>,
    address: SocketAddr,
    running: Option<(CancellationToken, JoinHandle<()>)>,
}

impl RegistryServer {
    /// Returns a stopped registry with a reserved address.
    pub(crate) async fn stopped() -> Self {
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        Self { state: Arc::default(), address, running: None }
    }

    pub(crate) async fn started() -> Self {
        let mut registry = Self::stopped().await;
        registry.start().await;
        registry
    }

    pub(crate) async fn start(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        let routes = Router::new()
            .route("/subjects/{subject}/versions", post(register))
            .route("/schemas/ids/{id}", get(schema))
            .with_state(Arc::clone(&self.state));
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let task =
            tokio::spawn(async move { axum::serve(listener, routes).with_graceful_shutdown(stopped).await.unwrap() });
        self.running = Some((stop, task));
    }

    /// Closes all connections and the port.
    pub(crate) async fn stop(&mut self) {
        if let Some((stop, task)) = self.running.take() {
            stop.cancel();
            task.await.unwrap();
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, RegistryState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn register(
    State(state): State<Arc<Mutex<RegistryState>>>,
    Path(subject): Path<String>,
    Json(body): Json<Value>,
) -> Response {
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    state.registrations += 1;
    assert_eq!(body["schemaType"], "AVRO");
    let Some(Ok(schema)) = body["schema"].as_str().map(serde_json::from_str::<Value>) else {
        return failure(StatusCode::UNPROCESSABLE_ENTITY, 42_201, "Invalid schema");
    };
    // Real registries also assign one id per schema, independent of its subjects.
    let known = state.schemas.iter().position(|(_, known)| *known == schema);
    if known.is_none() && state.rejects_new_schemas {
        let message = "Schema being registered is incompatible with an earlier schema";
        return failure(StatusCode::CONFLICT, 409, message);
    }
    let index = known.unwrap_or_else(|| {
        state.schemas.push((subject, schema));
        state.schemas.len() - 1
    });
    (StatusCode::OK, Json(json!({ "id": FIRST_ID + index })))
}

async fn schema(State(state): State<Arc<Mutex<RegistryState>>>, Path(id): Path<usize>) -> Response {
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    state.lookups += 1;
    match id.checked_sub(FIRST_ID).and_then(|index| state.schemas.get(index)) {
        Some((_, schema)) => (StatusCode::OK, Json(json!({ "schema": schema.to_string() }))),
        None => failure(StatusCode::NOT_FOUND, 40_403, &format!("Schema {id} not found")),
    }
}

fn failure(status: StatusCode, code: u32, message: &str) -> Response {
    (status, Json(json!({ "error_code": code, "message": message })))
}

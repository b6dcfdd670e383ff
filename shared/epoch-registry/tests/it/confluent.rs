//! A small server that speaks the part of Confluent's HTTP API which the bus uses. It stands in for a real registry, which can't be
//! installed everywhere; what it has survives its restarts.

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

/// The first number it gives.
pub(crate) const FIRST_ID: usize = 100_001;

type Answer = (StatusCode, Json<Value>);

#[derive(Default)]
pub(crate) struct Kept {
    /// Subject and schema, in the order of their numbers.
    pub(crate) schemas: Vec<(String, Value)>,
    /// How often it was asked to register.
    pub(crate) registrations: usize,
    /// How often it was asked for a schema.
    pub(crate) questions: usize,
    /// It finds every new schema incompatible.
    pub(crate) refuses: bool,
}

/// A registry that can be stopped and started again.
pub(crate) struct Registry {
    kept: Arc<Mutex<Kept>>,
    address: SocketAddr,
    running: Option<(CancellationToken, JoinHandle<()>)>,
}

impl Registry {
    /// One that isn't running yet, but has its address.
    pub(crate) async fn stopped() -> Self {
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        Self { kept: Arc::default(), address, running: None }
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
            .with_state(Arc::clone(&self.kept));
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let task =
            tokio::spawn(async move { axum::serve(listener, routes).with_graceful_shutdown(stopped).await.unwrap() });
        self.running = Some((stop, task));
    }

    /// Closes its connections and its port.
    pub(crate) async fn stop(&mut self) {
        if let Some((stop, task)) = self.running.take() {
            stop.cancel();
            task.await.unwrap();
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    pub(crate) fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn register(
    State(kept): State<Arc<Mutex<Kept>>>,
    Path(subject): Path<String>,
    Json(body): Json<Value>,
) -> Answer {
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    kept.registrations += 1;
    assert_eq!(body["schemaType"], "AVRO");
    let Some(Ok(schema)) = body["schema"].as_str().map(serde_json::from_str::<Value>) else {
        return failed(StatusCode::UNPROCESSABLE_ENTITY, 42_201, "Invalid schema");
    };
    // Like the real ones: one number for one schema, whatever subjects it is registered under.
    let known = kept.schemas.iter().position(|(_, known)| *known == schema);
    if known.is_none() && kept.refuses {
        let message = "Schema being registered is incompatible with an earlier schema";
        return failed(StatusCode::CONFLICT, 409, message);
    }
    let index = known.unwrap_or_else(|| {
        kept.schemas.push((subject, schema));
        kept.schemas.len() - 1
    });
    (StatusCode::OK, Json(json!({ "id": FIRST_ID + index })))
}

async fn schema(State(kept): State<Arc<Mutex<Kept>>>, Path(id): Path<usize>) -> Answer {
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    kept.questions += 1;
    match id.checked_sub(FIRST_ID).and_then(|index| kept.schemas.get(index)) {
        Some((_, schema)) => (StatusCode::OK, Json(json!({ "schema": schema.to_string() }))),
        None => failed(StatusCode::NOT_FOUND, 40_403, &format!("Schema {id} not found")),
    }
}

fn failed(status: StatusCode, code: u32, message: &str) -> Answer {
    (status, Json(json!({ "error_code": code, "message": message })))
}

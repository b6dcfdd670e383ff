//! The events of a service for other services: `/internal/v1/{service}/streams`.
//!
//! A service that copies events from the bus compares its copy with the owner's log. The log is read per aggregate, by
//! version, gapless and byte for byte as stored, in pages bounded in events and bytes. Only services may read it, and the
//! console does not route to it.

use axum::{
    Json, Router,
    extract::{FromRef, State},
    routing::get,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use epoch::{Envelope, Metadata, Position, Timestamp, Version, Versions, event::SchemaId, store::Streamer};
use epoch_postgres::PgStore;
use futures::TryStreamExt;
use http_kit::{ApiPath, ApiQuery, Caller, Problem, Role, Secrets, server};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::peer::{Peer, PeerError};

/// The maximum number of events or streams of a page.
pub const MAX_LIMIT: u32 = 1_000;
/// The default number of events or streams of a page.
const DEFAULT_LIMIT: u32 = 200;
/// A page ends with the event at which its payloads reach this many bytes.
const MAX_PAGE_BYTES: usize = 1024 * 1024;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredEvent {
    /// The version of the aggregate after this event, from 1.
    pub version: u64,
    pub event_id: Uuid,
    pub name: String,
    /// The fingerprint of the writer's schema: 16 hexadecimal digits.
    pub schema: String,
    /// One Avro datum, in base64.
    pub payload: String,
    /// UTC milliseconds.
    pub occurred_at: i64,
    /// UTC milliseconds.
    pub recorded_at: i64,
    pub metadata: Metadata,
}

/// A page of a stream's events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamPage {
    /// Gapless, by version.
    pub events: Vec<StoredEvent>,
    /// The `after` of the next page. `None` at the end of the stream.
    pub next: Option<u64>,
}

/// The end of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamEnd {
    /// The id of the aggregate.
    pub id: Uuid,
    /// The last version.
    pub version: u64,
    /// When the last version was recorded, in UTC milliseconds.
    pub recorded_at: i64,
}

/// A page of an aggregate's streams.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamsPage {
    /// Ordered by id.
    pub streams: Vec<StreamEnd>,
    /// The `after` of the next page. `None` after the last page. An empty page may have a next page.
    pub next: Option<Uuid>,
}

#[derive(Clone, FromRef)]
struct Log {
    store: PgStore,
    secrets: Secrets,
    aggregates: Aggregates,
}

#[derive(Clone)]
struct Aggregates(Vec<&'static str>);

impl Log {
    /// Checks the caller and returns the aggregate of this name.
    ///
    /// # Errors
    /// 403 for a caller that is not a service, 404 for an aggregate of another service.
    fn aggregate(&self, caller: &Caller, name: &str) -> Result<&'static str, Problem> {
        caller.at_least(Role::Service)?;
        self.aggregates.0.iter().find(|own| **own == name).copied().ok_or_else(|| {
            Problem::not_found(format!("{name:?} is not an aggregate of this service"))
                .of_kind("/problems/not-an-aggregate", "not an aggregate of this service")
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StreamQuery<K> {
    after: Option<K>,
    limit: Option<u32>,
}

impl<K> StreamQuery<K> {
    fn limit(&self) -> Result<u32, Problem> {
        match self.limit.unwrap_or(DEFAULT_LIMIT) {
            limit @ 1..=MAX_LIMIT => Ok(limit),
            limit => Err(Problem::bad_request(format!("limit is {limit}, it must be from 1 to {MAX_LIMIT}"))),
        }
    }
}

fn streams_path(service: &str, aggregate: &str) -> String {
    format!("/internal/v1/{service}/streams/{aggregate}")
}

/// Returns the routes for the streams of a service's `aggregates`.
pub fn routes(service: &str, aggregates: Vec<&'static str>, store: PgStore, secrets: Secrets) -> Router {
    let log = Log { store, secrets, aggregates: Aggregates(aggregates) };
    Router::new()
        .route(&streams_path(service, "{aggregate}"), get(streams))
        .route(&streams_path(service, "{aggregate}/{id}"), get(events))
        .layer(server::bounded())
        .with_state(log)
}

async fn streams(
    State(log): State<Log>,
    caller: Caller,
    ApiPath(aggregate): ApiPath<String>,
    ApiQuery(query): ApiQuery<StreamQuery<Uuid>>,
) -> Result<Json<StreamsPage>, Problem> {
    let aggregate = log.aggregate(&caller, &aggregate)?;
    let page = log.store.ends(aggregate, query.after.unwrap_or_default(), query.limit()?).await?;
    let end = |end: &epoch_postgres::StreamEnd| StreamEnd {
        id: end.id,
        version: end.version.get(),
        recorded_at: end.recorded_at.as_millis(),
    };
    Ok(Json(StreamsPage { streams: page.ends.iter().map(end).collect(), next: page.next }))
}

/// Returns an empty page for a stream that does not exist.
async fn events(
    State(log): State<Log>,
    caller: Caller,
    ApiPath((aggregate, id)): ApiPath<(String, Uuid)>,
    ApiQuery(query): ApiQuery<StreamQuery<u64>>,
) -> Result<Json<StreamPage>, Problem> {
    let aggregate = log.aggregate(&caller, &aggregate)?;
    let (after, limit) = (Version::new(query.after.unwrap_or(0)), u64::from(query.limit()?));
    // The additional event shows whether there is a next page.
    let mut stored = log.store.read(aggregate, id, Versions::since(after).limit(limit.saturating_add(1)));
    let (mut events, mut bytes, mut next) = (Vec::new(), 0_usize, None);
    while let Some(event) = stored.try_next().await? {
        if events.len() as u64 >= limit || bytes >= MAX_PAGE_BYTES {
            next = events.last().map(|last: &StoredEvent| last.version);
            break;
        }
        bytes = bytes.saturating_add(event.payload.len());
        events.push(StoredEvent::from(&event));
    }
    Ok(Json(StreamPage { events, next }))
}

impl From<&Envelope> for StoredEvent {
    fn from(event: &Envelope) -> Self {
        Self {
            version: event.version.get(),
            event_id: event.event_id,
            name: event.event_name.to_string(),
            schema: event.schema.to_string(),
            payload: STANDARD.encode(&event.payload),
            occurred_at: event.occurred_at.as_millis(),
            recorded_at: event.recorded_at.as_millis(),
            metadata: event.metadata.clone(),
        }
    }
}

/// A received event with a malformed schema or payload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("version {version} is malformed: {detail}")]
pub struct MalformedEvent {
    version: u64,
    detail: String,
}

impl StoredEvent {
    /// Converts to the envelope that a handler receives over the bus. The position is left out: it is meaningful only to the
    /// owner.
    ///
    /// # Errors
    /// [`MalformedEvent`] when the schema is not hexadecimal or the payload is not base64.
    pub fn envelope(self, aggregate: &'static str, id: Uuid) -> Result<Envelope, MalformedEvent> {
        let version = self.version;
        let malformed = |detail: String| MalformedEvent { version, detail };
        let schema: [u8; 8] = hex::decode(&self.schema)
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or_else(|| malformed(format!("{:?} is not a schema fingerprint", self.schema)))?;
        let payload = STANDARD.decode(&self.payload).map_err(|error| malformed(error.to_string()))?;
        Ok(Envelope {
            event_id: self.event_id,
            aggregate: aggregate.into(),
            aggregate_id: id,
            version: Version::new(version),
            position: Position::START,
            event_name: self.name.into(),
            schema: SchemaId::new(u64::from_be_bytes(schema)),
            payload: Bytes::from(payload),
            occurred_at: Timestamp::from_millis(self.occurred_at),
            recorded_at: Timestamp::from_millis(self.recorded_at),
            metadata: self.metadata,
        })
    }
}

/// A client for the streams of an aggregate of another service.
#[derive(Debug, Clone)]
pub struct StreamClient {
    peer: Peer,
    path: String,
    aggregate: &'static str,
}

impl StreamClient {
    /// Returns a client for the streams of `aggregate`, which `service` at `peer` owns.
    #[must_use]
    pub fn new(peer: Peer, service: &str, aggregate: &'static str) -> Self {
        Self { peer, path: streams_path(service, aggregate), aggregate }
    }

    #[must_use]
    pub fn aggregate(&self) -> &'static str {
        self.aggregate
    }

    /// Returns up to [`MAX_LIMIT`] events of a stream after a version.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn events(&self, id: Uuid, after: u64) -> Result<StreamPage, PeerError> {
        self.peer.get(&format!("{}/{id}?after={after}&limit={MAX_LIMIT}", self.path)).receive().await
    }

    /// Returns up to `limit` streams after an id.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn streams(&self, after: Uuid, limit: u32) -> Result<StreamsPage, PeerError> {
        self.peer.get(&format!("{}?after={after}&limit={limit}", self.path)).receive().await
    }
}

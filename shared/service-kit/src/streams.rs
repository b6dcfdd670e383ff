//! A service's events, handed out to the other services.
//!
//! The problem: who keeps a copy of what it heard over the bus has nothing to compare it with: the log lies in a schema that only its
//! service reads, and a topic is read from one end to the other, not an aggregate at a time.
//!
//! The invariant: what is handed out is the log as it is stored, byte for byte and without holes, by version, in pages that are bounded
//! in events and in bytes; to services only, and only what the service itself wrote. It is not behind the public door.

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
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    ApiPath, ApiQuery, Caller, Problem, Role, Secrets,
    http_client::{Peer, PeerError},
    server,
};

/// The most events, or streams, of a page.
pub const MOST: u32 = 1_000;
/// How many there are if the caller doesn't say.
const DEFAULT: u32 = 200;
/// A page ends with the event that brings its payloads to this many bytes.
const BUDGET: usize = 1024 * 1024;

/// An event as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredEvent {
    /// Its place in the stream, from 1.
    pub version: u64,
    /// Its id.
    pub event_id: Uuid,
    /// Its name as it is stored.
    pub name: String,
    /// The fingerprint of the schema it was written with: 16 hexadecimal digits.
    pub schema: String,
    /// One Avro datum, in base64.
    pub payload: String,
    /// When it happened, in UTC milliseconds.
    pub occurred_at: i64,
    /// When the service took it, in UTC milliseconds.
    pub recorded_at: i64,
    /// Whose it is, and what caused it.
    pub metadata: Metadata,
}

/// A part of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamPage {
    /// By version, without holes.
    pub events: Vec<StoredEvent>,
    /// The version after which to go on; `None` at the stream's end.
    pub next: Option<u64>,
}

/// Where a stream ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndOfStream {
    /// The aggregate's id.
    pub id: Uuid,
    /// Its last version.
    pub version: u64,
    /// When that was recorded, in UTC milliseconds.
    pub recorded_at: i64,
}

/// Some of the streams of an aggregate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamsPage {
    /// By id.
    pub streams: Vec<EndOfStream>,
    /// The id after which to go on; `None` when there is nothing more. A page may be empty and have one.
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
    /// The aggregate of this name.
    ///
    /// # Errors
    /// 403 for who isn't a service, 404 for an aggregate of another service.
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
struct Part<P> {
    after: Option<P>,
    limit: Option<u32>,
}

impl<P> Part<P> {
    fn limit(&self) -> Result<u32, Problem> {
        match self.limit.unwrap_or(DEFAULT) {
            limit @ 1..=MOST => Ok(limit),
            limit => Err(Problem::bad_request(format!("limit is {limit}, it must be 1 to {MOST}"))),
        }
    }
}

/// Where `service` hands out the streams of an aggregate.
fn path(service: &str, aggregate: &str) -> String {
    format!("/internal/v1/{service}/streams/{aggregate}")
}

/// The routes by which `service` hands out the streams of its `aggregates`, to services.
pub fn routes(service: &str, aggregates: Vec<&'static str>, store: PgStore, secrets: Secrets) -> Router {
    let log = Log { store, secrets, aggregates: Aggregates(aggregates) };
    Router::new()
        .route(&path(service, "{aggregate}"), get(streams))
        .route(&path(service, "{aggregate}/{id}"), get(events))
        .layer(server::bounded())
        .with_state(log)
}

async fn streams(
    State(log): State<Log>,
    caller: Caller,
    ApiPath(aggregate): ApiPath<String>,
    ApiQuery(part): ApiQuery<Part<Uuid>>,
) -> Result<Json<StreamsPage>, Problem> {
    let aggregate = log.aggregate(&caller, &aggregate)?;
    let page = log.store.ends(aggregate, part.after.unwrap_or_default(), part.limit()?).await?;
    let end = |end: &epoch_postgres::StreamEnd| EndOfStream {
        id: end.id,
        version: end.version.get(),
        recorded_at: end.recorded_at.as_millis(),
    };
    Ok(Json(StreamsPage { streams: page.ends.iter().map(end).collect(), next: page.next }))
}

/// A stream that there is none of is empty.
async fn events(
    State(log): State<Log>,
    caller: Caller,
    ApiPath((aggregate, id)): ApiPath<(String, Uuid)>,
    ApiQuery(part): ApiQuery<Part<u64>>,
) -> Result<Json<StreamPage>, Problem> {
    let aggregate = log.aggregate(&caller, &aggregate)?;
    let (after, limit) = (Version::new(part.after.unwrap_or(0)), u64::from(part.limit()?));
    // One more shows whether the page is the last.
    let mut stored = log.store.read(aggregate, id, Versions::since(after).limit(limit.saturating_add(1)));
    let (mut events, mut bytes, mut next) = (Vec::new(), 0_usize, None);
    while let Some(event) = stored.try_next().await? {
        if events.len() as u64 >= limit || bytes >= BUDGET {
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

/// An event that isn't what an owner hands out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("version {version} can't be read: {detail}")]
pub struct Unreadable {
    version: u64,
    detail: String,
}

impl StoredEvent {
    /// The event of the aggregate that it was asked for, as a handler would have got it over the bus; without its position, which
    /// means something to the owner only.
    ///
    /// # Errors
    /// [`Unreadable`] when the schema or the payload isn't text of the right form.
    pub fn envelope(self, aggregate: &'static str, id: Uuid) -> Result<Envelope, Unreadable> {
        let version = self.version;
        let unreadable = |detail: String| Unreadable { version, detail };
        let schema: [u8; 8] = hex::decode(&self.schema)
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or_else(|| unreadable(format!("{:?} is not the fingerprint of a schema", self.schema)))?;
        let payload = STANDARD.decode(&self.payload).map_err(|error| unreadable(error.to_string()))?;
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

/// The service that has the streams of an aggregate.
#[derive(Debug, Clone)]
pub struct Owner {
    peer: Peer,
    path: String,
    aggregate: &'static str,
}

impl Owner {
    /// `service`, which is at `peer` and has the streams of `aggregate`.
    #[must_use]
    pub fn new(peer: Peer, service: &str, aggregate: &'static str) -> Self {
        Self { peer, path: path(service, aggregate), aggregate }
    }

    /// The aggregate.
    #[must_use]
    pub fn aggregate(&self) -> &'static str {
        self.aggregate
    }

    /// Events of one stream after a version, up to [`MOST`]. It has [ten seconds](Peer), like every call.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn events(&self, id: Uuid, after: u64) -> Result<StreamPage, PeerError> {
        self.peer.get(&format!("{}/{id}?after={after}&limit={MOST}", self.path)).receive().await
    }

    /// Up to `limit` streams after an id.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn streams(&self, after: Uuid, limit: u32) -> Result<StreamsPage, PeerError> {
        self.peer.get(&format!("{}?after={after}&limit={limit}", self.path)).receive().await
    }
}

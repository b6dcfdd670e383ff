//! The contestants, one per file.

mod cqrs_es;
mod epoch;
mod esrs;
mod eventastic;
mod evento;
mod mire;

use std::sync::Arc;

use anyhow::Result;

use crate::{contestant::Contestant, database::Address};

/// The names of the contestants, in the order of the report.
pub const NAMES: [&str; 7] = ["epoch", "epoch-plain", "cqrs-es", "esrs", "evento", "mire", "eventastic"];

/// Returns a short description of a contestant's configuration.
pub fn configuration(name: &str) -> &'static str {
    match name {
        "epoch" => "defaults: `Repository` with a cache of 10,000 states, group commit, Avro payloads",
        "epoch-plain" => "without batching and cache: one `PgStore::transaction` per command, `with_cache(0)`",
        "cqrs-es" => {
            "0.5 with `postgres-es`; `postgres_cqrs` below depth 100, otherwise `postgres_snapshot_cqrs` every 100 events"
        }
        "esrs" => "0.18, `PgStore`, UUIDv7, optimistic; no snapshots",
        "evento" => "2.0.0-alpha.38 with `evento-sql`; write model with `snapshot(memory)`",
        "mire" => {
            "0.4; `load`/`save` below depth 100, otherwise `load_snapshotted`/`save_snapshotting` every 100 events"
        }
        "eventastic" => {
            "0.5, `PostgresRepository` with JSON, no encryption; writes a snapshot at every save; no read models"
        }
        _ => "",
    }
}

/// The peers that are not measured, with the reason.
pub const NOT_MEASURED: &str = "`disintegrate-postgres` 4.0 requires PostgreSQL 16, because its functions use hexadecimal \
     integers.";

/// Connects a contestant, and creates its tables if they are missing.
pub async fn open(name: &str, address: &Address) -> Result<Arc<dyn Contestant>> {
    Ok(match name {
        "epoch" => Arc::new(epoch::Epoch::open(address).await?),
        "epoch-plain" => Arc::new(epoch::Plain::open(address).await?),
        "cqrs-es" => Arc::new(cqrs_es::CqrsEs::open(address).await?),
        "esrs" => Arc::new(esrs::Esrs::open(address).await?),
        "evento" => Arc::new(evento::Evento::open(address).await?),
        "mire" => Arc::new(mire::Mire::open(address).await?),
        "eventastic" => Arc::new(eventastic::Eventastic::open(address).await?),
        other => anyhow::bail!("unknown contestant {other}; expected one of {}", NAMES.join(", ")),
    })
}

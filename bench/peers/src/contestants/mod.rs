//! The contestants, one file each.

mod cqrs_es;
mod epoch;
mod esrs;
mod eventastic;
mod evento;
mod mire;

use std::sync::Arc;

use anyhow::Result;

use crate::{contestant::Contestant, database::Address};

/// The names by which contestants are chosen, in the order of the tables.
pub const NAMES: [&str; 7] = ["epoch", "epoch-plain", "cqrs-es", "esrs", "evento", "mire", "eventastic"];

/// How a contestant is used here, in a few words.
pub fn configuration(name: &str) -> &'static str {
    match name {
        "epoch" => "as it comes: `Repository` with its cache of 10,000 states, group commit, Avro payloads",
        "epoch-plain" => "batching and cache switched off: `PgStore::transaction` a command, `with_cache(0)`",
        "cqrs-es" => {
            "0.5 with `postgres-es`; below depth 100 `postgres_cqrs`, from there `postgres_snapshot_cqrs` every 100 events"
        }
        "esrs" => "0.18, `PgStore`, UUIDv7, optimistic; no snapshots",
        "evento" => "2.0.0-alpha.38 with `evento-sql`; write model with `snapshot(memory)`",
        "mire" => {
            "0.4; below depth 100 `load`/`save`, from there `load_snapshotted`/`save_snapshotting` every 100 events"
        }
        "eventastic" => {
            "0.5, `PostgresRepository` with JSON, no encryption; writes a snapshot with every save; no read models"
        }
        _ => "",
    }
}

/// Peers that do not take part, and why.
pub const LEFT_OUT: &str = "`disintegrate-postgres` 4.0 needs PostgreSQL 16: its functions are written with hexadecimal \
     numbers, which older servers don't read.";

/// Connects a contestant; the first time makes its tables.
pub async fn open(name: &str, address: &Address) -> Result<Arc<dyn Contestant>> {
    Ok(match name {
        "epoch" => Arc::new(epoch::Epoch::open(address).await?),
        "epoch-plain" => Arc::new(epoch::Plain::open(address).await?),
        "cqrs-es" => Arc::new(cqrs_es::CqrsEs::open(address).await?),
        "esrs" => Arc::new(esrs::Esrs::open(address).await?),
        "evento" => Arc::new(evento::Evento::open(address).await?),
        "mire" => Arc::new(mire::Mire::open(address).await?),
        "eventastic" => Arc::new(eventastic::Eventastic::open(address).await?),
        other => anyhow::bail!("no contestant is called {other}; there are {}", NAMES.join(", ")),
    })
}

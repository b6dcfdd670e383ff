//! Measurement windows in which clients repeat one operation as often as possible.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use anyhow::Result;
use sqlx::PgPool;

/// The result of one window.
pub struct Sample {
    /// Operations per second.
    pub rate: f64,
    /// The latency of each operation, in microseconds.
    pub latencies: Vec<u32>,
    /// Bytes of write-ahead log per operation.
    pub wal: f64,
}

/// Repeats `operation` with `clients` clients for `length`. Its arguments are the client's index and the number of its earlier
/// operations.
pub async fn window<F, D>(server: &PgPool, clients: usize, length: Duration, operation: F) -> Result<Sample>
where
    F: Fn(usize, usize) -> D + Clone + Send + 'static,
    D: Future<Output = Result<()>> + Send,
{
    let log = log_position(server).await?;
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for client in 0..clients {
        let operation = operation.clone();
        tasks.spawn(async move {
            let mut latencies = Vec::with_capacity(4_096);
            while start.elapsed() < length {
                let begin = Instant::now();
                operation(client, latencies.len()).await?;
                latencies.push(micros(begin.elapsed())?);
            }
            anyhow::Ok(latencies)
        });
    }
    let mut latencies = Vec::new();
    while let Some(done) = tasks.join_next().await {
        latencies.extend(done??);
    }
    let elapsed = start.elapsed();
    let written = log_position(server).await? - log;
    let rate = latencies.len() as f64 / elapsed.as_secs_f64();
    Ok(Sample { rate, wal: written as f64 / latencies.len().max(1) as f64, latencies })
}

pub fn micros(duration: Duration) -> Result<u32> {
    Ok(u32::try_from(duration.as_micros())?)
}

/// Returns the bytes of write-ahead log that all databases have written so far.
async fn log_position(server: &PgPool) -> Result<i64> {
    let position = "select (pg_current_wal_insert_lsn() - '0/0')::bigint";
    Ok(sqlx::query_scalar(position).fetch_one(server).await?)
}

//! Measurements of Epoch and of metering; run by `./dev bench`, which brings the servers up.

mod codec;
mod commands;
mod delivery;
mod load;
mod metering;
mod note;
mod report;

use anyhow::{Context, Result};

#[tokio::main]
async fn main() -> Result<()> {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let runs = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name);
    if runs("codec") {
        codec::run()?;
    }
    if wanted == ["codec"] {
        return Ok(());
    }
    let server = std::env::var("EPOCH_BENCH_DATABASE_URL").context("EPOCH_BENCH_DATABASE_URL; run by ./dev bench")?;
    let pgbench = std::env::var("PGBENCH").unwrap_or_else(|_| "pgbench".to_owned());
    if runs("commands") {
        commands::run(&server, &pgbench).await?;
    }
    if runs("driver") {
        commands::driver_floor(&server).await?;
    }
    if runs("load") {
        load::run(&server).await?;
    }
    if runs("metering") {
        metering::run(&server).await?;
    }
    let Ok(kafka) = std::env::var("EPOCH_BENCH_KAFKA") else {
        println!("\nno Kafka: nothing is measured over it");
        return Ok(());
    };
    if runs("visible") {
        delivery::visible(&server, &kafka).await?;
    }
    if runs("catch-up") {
        delivery::catch_up(&server, &kafka).await?;
    }
    Ok(())
}

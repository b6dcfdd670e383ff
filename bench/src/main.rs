//! Benchmarks of Epoch and of metering. Run by `./dev bench`, which starts the servers.
//!
//! A missed limit is printed at the end and fails the run.

mod codec;
mod commands;
mod delivery;
mod load;
mod metering;
mod note;
mod report;
mod statistics;

use std::process::ExitCode;

use anyhow::{Context, Result};

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let missed = measure().await?;
    for missed in &missed {
        println!("\nlimit missed: {missed}");
    }
    Ok(if missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs the selected benchmarks. Returns the missed limits.
async fn measure() -> Result<Vec<String>> {
    let mut missed = Vec::new();
    let selected: Vec<String> = std::env::args().skip(1).collect();
    let runs = |name: &str| selected.is_empty() || selected.iter().any(|selected| selected == name);
    if runs("codec") {
        codec::run()?;
    }
    if selected == ["codec"] {
        return Ok(missed);
    }
    let server =
        std::env::var("EPOCH_BENCH_DATABASE_URL").context("EPOCH_BENCH_DATABASE_URL is not set; run ./dev bench")?;
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
        missed.extend(metering::run(&server).await?);
    }
    let Ok(kafka) = std::env::var("EPOCH_BENCH_KAFKA") else {
        println!("\nEPOCH_BENCH_KAFKA is not set: Kafka benchmarks are skipped");
        return Ok(missed);
    };
    if runs("visible") {
        delivery::visible(&server, &kafka).await?;
    }
    if runs("catch-up") {
        delivery::catch_up(&server, &kafka).await?;
    }
    Ok(missed)
}

//! Measurements of Epoch and of metering; run by `./dev bench`, which brings the servers up. What was promised as a limit and doesn't
//! hold is told last, and fails the run.

mod codec;
mod commands;
mod delivery;
mod load;
mod metering;
mod note;
mod report;

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

/// Measures what is wanted; gives the limits that don't hold.
async fn measure() -> Result<Vec<String>> {
    let mut missed = Vec::new();
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let runs = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name);
    if runs("codec") {
        codec::run()?;
    }
    if wanted == ["codec"] {
        return Ok(missed);
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
        missed.extend(metering::run(&server).await?);
    }
    let Ok(kafka) = std::env::var("EPOCH_BENCH_KAFKA") else {
        println!("\nno Kafka: nothing is measured over it");
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

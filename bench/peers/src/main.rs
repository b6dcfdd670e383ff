//! Compares Epoch with other event stores for Rust on one Postgres server. Run by `./dev bench epoch`.
//!
//! All figures come from the same machine, the same minutes and the same work:
//!
//! - Each contestant has the same payload, a pool of the same size, and a new database for each row.
//! - Contestants take turns within each round, so that noise affects all of them.
//! - Each contestant runs in the best configuration that its documentation names. Missing features are not added.

mod contestant;
mod contestants;
mod counting_proxy;
mod database;
mod field;
mod measure;
mod report;
mod rows;
mod server;
mod settings;
#[path = "../../src/statistics.rs"]
mod statistics;

use anyhow::Result;
use settings::Settings;
use sqlx::PgPool;

#[tokio::main]
async fn main() -> Result<()> {
    if std::env::args().any(|argument| argument == "--help") {
        println!("{}", settings::HELP);
        return Ok(());
    }
    let settings = Settings::read(std::env::args().skip(1))?;
    let control = database::control(&settings.server).await?;
    introduce(&settings, &control).await?;
    let verdicts = rows::run(&settings, &control).await?;
    report::summary(&verdicts);
    Ok(())
}

async fn introduce(settings: &Settings, control: &PgPool) -> Result<()> {
    let mut server = Vec::new();
    for name in ["server_version", "fsync", "synchronous_commit", "shared_buffers"] {
        let value: String = sqlx::query_scalar("select current_setting($1)").bind(name).fetch_one(control).await?;
        server.push(format!("{name} {value}"));
    }
    let cores = std::thread::available_parallelism()?;
    println!("# Epoch compared with its peers\n");
    println!("PostgreSQL: {}; {cores} cores shared by server and clients.", server.join(", "));
    println!(
        "Payload 230 bytes, pool {}, {} rounds in turns, windows of {} ms. Statements and round trips are counted by a proxy in \
         separate runs. WAL bytes come from the server's log position and include full pages after checkpoints.\n",
        database::POOL,
        settings.rounds,
        settings.window.as_millis(),
    );
    for name in &settings.contestants {
        println!("- {name}: {}", contestants::configuration(name));
    }
    println!("\nNot measured: {}", contestants::NOT_MEASURED);
    Ok(())
}

//! Epoch side by side with other event stores for Rust, on one Postgres; run by `./dev bench epoch`.
//!
//! The problem: a figure says little without another one beside it, of the same machine, the same minute and the same work.
//!
//! The invariants: every contestant has the same payload, a pool of the same size and a fresh database for each row; they
//! take turns within each round, so that a noisy minute hits all of them; each is used as its documentation says, in the
//! best configuration it names; and what one can't do is not built for it.

mod contestant;
mod contestants;
mod database;
mod field;
mod measure;
mod report;
mod rows;
mod server;
mod settings;
mod wire;

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
    println!("# Epoch beside its peers\n");
    println!("PostgreSQL: {}; {cores} cores shared by server and clients.", server.join(", "));
    println!(
        "Payload of 230 bytes, pool of {}, {} rounds in turns, windows of {} ms. Statements and round trips are counted on the \
         wire, in runs of their own; WAL bytes by the server's log position, checkpoints' full pages included.\n",
        database::POOL,
        settings.rounds,
        settings.window.as_millis(),
    );
    for name in &settings.contestants {
        println!("- {name}: {}", contestants::configuration(name));
    }
    println!("\nLeft out: {}", contestants::LEFT_OUT);
    Ok(())
}

//! The server without a framework: pgbench with the same columns and the same unique index.

use std::{path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context, Result, bail};

use crate::database::Database;

const TABLE: &str = include_str!("../../src/single_table.sql");

/// Inserts `:rows` events of the same size, each for a new aggregate.
const INSERT: &str = "insert into single (aggregate, aggregate_id, version, event_id, event_name, schema, payload, metadata, \
     occurred_at, recorded_at) select 'note', gen_random_uuid(), 1, gen_random_uuid(), 'Noted', 7, \
     convert_to(repeat('x', 232), 'UTF8'), '{\"command_id\":\"01a1fd7b-18da-757b-bd01-c155addc4444\",\
     \"correlation_id\":\"01a1fd7b-18da-757b-bd01-c155addc4444\"}', 1, 1 from generate_series(1, :rows);";

/// A table, and the pgbench script that fills it.
pub struct Server {
    pgbench: String,
    database: Database,
    script: PathBuf,
}

impl Server {
    pub async fn open(server: &str, pgbench: String) -> Result<Self> {
        let database = Database::create(server).await?;
        sqlx::raw_sql(TABLE).execute(&database.control).await?;
        let script = std::env::temp_dir().join(format!("inserts-{}.sql", std::process::id()));
        std::fs::write(&script, INSERT).context("writing the pgbench script")?;
        Ok(Self { pgbench, database, script })
    }

    /// Measures events per second with this number of connections and of rows per commit.
    pub async fn events(&self, connections: usize, rows: u32, length: Duration) -> Result<f64> {
        let threads = connections.min(2).to_string();
        let seconds = length.as_secs_f64().ceil().to_string();
        let output = tokio::process::Command::new(&self.pgbench)
            .args(["-n", "-M", "prepared", "-c", &connections.to_string(), "-j", &threads, "-T", &seconds])
            .args(["-D", &format!("rows={rows}"), "-f"])
            .arg(&self.script)
            .arg(self.database.url())
            .stderr(Stdio::inherit())
            .output()
            .await
            .with_context(|| format!("running {}", self.pgbench))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let rate = text.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse::<f64>().ok());
        let Some(rate) = rate else { bail!("pgbench printed no rate: {text}") };
        Ok(rate * f64::from(rows))
    }

    pub async fn close(self) -> Result<()> {
        std::fs::remove_file(&self.script)?;
        self.database.drop().await;
        Ok(())
    }
}

//! The rows of the comparison. Contestants take turns within each round.

mod commands;
mod read_models;
mod replay;
mod rollbacks;

use anyhow::Result;
use sqlx::PgPool;

use crate::{report::Verdict, settings::Settings};

/// Runs the selected rows.
pub async fn run(settings: &Settings, control: &PgPool) -> Result<Vec<Verdict>> {
    let mut verdicts = Vec::new();
    for row in &settings.rows {
        verdicts.extend(match row {
            1 => commands::create(settings, control).await?,
            2 => commands::load_and_append(settings, control).await?,
            3 => commands::hot_aggregate(settings, control).await?,
            4 => commands::many_events(settings, control).await?,
            5 => replay::replay(settings).await?,
            6 => read_models::catch_up(settings).await?,
            7 => read_models::visible(settings).await?,
            8 => rollbacks::rollbacks(settings).await?,
            other => anyhow::bail!("unknown row {other}"),
        });
    }
    Ok(verdicts)
}

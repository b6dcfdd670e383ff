//! Whether an organization's job can have the files it asks for.
//!
//! The problem: a client uploads a file and creates a job with it at once, faster than the file's events come here.
//!
//! The invariant: a job is given complete files of its own organization only. What isn't known is waited for, for a bounded
//! time; another organization's file stays unknown for ever.

use std::{collections::HashMap, time::Duration};

use http_kit::Problem;
use sqlx::PgPool;
use tokio::time::Instant;
use uuid::Uuid;

use crate::{
    domain::job::{MAX_INPUT_FILES, unique},
    projections::known_files::{Unusable, unusable},
};

/// How long to wait for a file's events.
const WAIT_LIMIT: Duration = Duration::from_secs(2);
/// How often to look.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// Checks that all of `file_ids` are complete files of `organization`.
///
/// # Errors
/// 422 that names those that aren't.
pub(crate) async fn require_complete(pool: &PgPool, organization: Uuid, file_ids: &[Uuid]) -> Result<(), Problem> {
    let wanted = unique(file_ids);
    // The aggregate says so itself; here it only saves the questions.
    if wanted.is_empty() || wanted.len() > MAX_INPUT_FILES {
        return Ok(());
    }
    let deadline = Instant::now() + WAIT_LIMIT;
    loop {
        let found = unusable(pool, organization, &wanted).await?;
        if found == Unusable::default() {
            return Ok(());
        }
        if !found.gone.is_empty() || Instant::now() >= deadline {
            return Err(refusal(file_ids, &found));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn refusal(file_ids: &[Uuid], found: &Unusable) -> Problem {
    let count = found.not_yet.len() + found.gone.len();
    let first = found.gone.first().or(found.not_yet.first()).copied().unwrap_or_default();
    let detail = format!("{count} of the files can't be used, the first is {first}");
    let mut problem =
        Problem::unprocessable(detail).of_kind("/problems/unusable-files", "files are unknown or not complete");
    // Where each id comes first.
    let mut places: HashMap<Uuid, usize> = HashMap::new();
    for (index, file_id) in file_ids.iter().enumerate() {
        places.entry(*file_id).or_insert(index);
    }
    let gone = found.gone.iter().map(|id| (id, "was deleted, or its upload was given up"));
    let not_yet = found.not_yet.iter().map(|id| (id, "is not a complete file of this organization"));
    for (file_id, reason) in gone.chain(not_yet) {
        let index = places.get(file_id).copied().unwrap_or_default();
        problem = problem.at(format!("/file_ids/{index}"), format!("file {file_id} {reason}"));
    }
    problem
}

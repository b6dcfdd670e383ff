//! Checks the input files of a job.
//!
//! A job may use complete files of its own organization only. A client can create a job right after its upload, before the
//! file's events arrive in this service. An unknown file is therefore awaited for up to two seconds. A file of another
//! organization stays unknown forever.

use std::{collections::HashMap, time::Duration};

use http_kit::Problem;
use sqlx::PgPool;
use tokio::time::Instant;
use uuid::Uuid;

use crate::{
    domain::job::{MAX_INPUT_FILES, unique_file_ids},
    projections::known_files::{UnusableFiles, find_unusable_files},
};

const WAIT_LIMIT: Duration = Duration::from_secs(2);
const POLL_INTERVAL: Duration = Duration::from_millis(25);

/// Checks that all of `file_ids` are complete files of `organization`.
///
/// # Errors
/// 422 with one entry in `errors` for each unusable file.
pub(crate) async fn require_complete_files(
    pool: &PgPool,
    organization: Uuid,
    file_ids: &[Uuid],
) -> Result<(), Problem> {
    let ids = unique_file_ids(file_ids);
    // The aggregate rejects too many files; this saves the queries.
    if ids.is_empty() || ids.len() > MAX_INPUT_FILES {
        return Ok(());
    }
    let deadline = Instant::now() + WAIT_LIMIT;
    loop {
        let unusable = find_unusable_files(pool, organization, &ids).await?;
        if unusable == UnusableFiles::default() {
            return Ok(());
        }
        if !unusable.gone.is_empty() || Instant::now() >= deadline {
            return Err(unusable_files_problem(file_ids, &unusable));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

fn unusable_files_problem(file_ids: &[Uuid], unusable: &UnusableFiles) -> Problem {
    let count = unusable.pending.len() + unusable.gone.len();
    let first = unusable.gone.first().or(unusable.pending.first()).copied().unwrap_or_default();
    let detail = format!("unusable files: {count}; the first is {first}");
    let mut problem =
        Problem::unprocessable(detail).of_kind("/problems/unusable-files", "files are unknown or not complete");
    let mut first_indexes: HashMap<Uuid, usize> = HashMap::new();
    for (index, file_id) in file_ids.iter().enumerate() {
        first_indexes.entry(*file_id).or_insert(index);
    }
    let gone = unusable.gone.iter().map(|id| (id, "was deleted, or its upload was aborted"));
    let pending = unusable.pending.iter().map(|id| (id, "is not a complete file of this organization"));
    for (file_id, reason) in gone.chain(pending) {
        let index = first_indexes.get(file_id).copied().unwrap_or_default();
        problem = problem.at(format!("/file_ids/{index}"), format!("file {file_id} {reason}"));
    }
    problem
}

//! Sets of file ids that arrive as lists.

use std::collections::HashSet;

use uuid::Uuid;

use super::error::JobError;

/// Maximum number of input files of a job.
pub const MAX_INPUT_FILES: usize = 1_000;
/// Maximum number of output files of a job.
pub const MAX_OUTPUT_FILES: usize = 10_000;

/// Returns each id once, in the order of first occurrence.
#[must_use]
pub fn unique_file_ids(file_ids: &[Uuid]) -> Vec<Uuid> {
    let mut seen = HashSet::with_capacity(file_ids.len());
    file_ids.iter().copied().filter(|id| seen.insert(*id)).collect()
}

/// Returns each id once, in the order of first occurrence.
///
/// # Errors
/// [`JobError::TooManyFiles`] when there are more than `limit` unique ids.
pub(super) fn validate_file_ids(file_ids: &[Uuid], limit: usize) -> Result<Vec<Uuid>, JobError> {
    let unique = unique_file_ids(file_ids);
    if unique.len() > limit {
        return Err(JobError::TooManyFiles { count: unique.len(), limit });
    }
    Ok(unique)
}

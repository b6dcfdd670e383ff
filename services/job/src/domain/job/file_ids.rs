//! Sets of files that come as lists.

use std::collections::HashSet;

use uuid::Uuid;

use super::JobError;

/// The most files a job can read.
pub const MAX_INPUT_FILES: usize = 1_000;
/// The most files a job can write.
pub const MAX_OUTPUT_FILES: usize = 10_000;

/// Each id once, in the order they first come.
#[must_use]
pub fn unique(file_ids: &[Uuid]) -> Vec<Uuid> {
    let mut seen = HashSet::with_capacity(file_ids.len());
    file_ids.iter().copied().filter(|id| seen.insert(*id)).collect()
}

/// The same, when there are at most `limit`.
pub(super) fn checked(file_ids: &[Uuid], limit: usize) -> Result<Vec<Uuid>, JobError> {
    let unique = unique(file_ids);
    if unique.len() > limit {
        return Err(JobError::TooManyFiles { count: unique.len(), limit });
    }
    Ok(unique)
}

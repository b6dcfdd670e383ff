//! File sharing: links, levels, and the shares of jobs.

pub mod shared_files;

use std::collections::{BTreeMap, BTreeSet};

use rating::{
    calendar::span::Span,
    metering::level::LevelChange,
    sharing::{
        file_change::{Change, FileChange},
        rule::SharingRules,
        shares::{Shares, shares},
    },
};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    read_error::ReadError,
    read_models::{file_links::Links, storage_changes::Changes},
};

/// The known creators of jobs.
pub(crate) type Users = BTreeMap<Uuid, Uuid>;

/// Reads the creators of linked jobs, if a sharing rule needs them.
pub(crate) async fn job_creators(
    connection: &mut PgConnection,
    organization: Uuid,
    rules: &SharingRules,
    links: &Links,
) -> Result<Users, ReadError> {
    if !rules.need_users() {
        return Ok(Users::new());
    }
    let mut jobs = BTreeSet::new();
    for change in links.values().flatten() {
        if let Change::Link(job) = change.change {
            jobs.insert(job);
        }
    }
    let jobs: Vec<_> = jobs.into_iter().collect();
    let known = sqlx::query_as(
        "select job_id, user_id from metered_jobs \
         where organization_id = $1 and job_id = any($2) and user_id is not null",
    );
    let users: Vec<(Uuid, Uuid)> = known.bind(organization).bind(jobs).fetch_all(connection).await?;
    Ok(users.into_iter().collect())
}

/// Computes the shares of jobs in each of `spans`, for files with links.
pub(crate) fn share_files(
    links: Links,
    mut levels: Changes,
    spans: &[Span],
    rules: &SharingRules,
    users: &Users,
) -> BTreeMap<Uuid, Shares<Uuid>> {
    let mut share_files = BTreeMap::new();
    for (file, mut changes) in links {
        for LevelChange { at, delta } in levels.remove(&file).unwrap_or_default() {
            changes.push(FileChange { at, change: Change::Level(delta) });
        }
        // The sort is stable: changes of one instant stay in the order of their events.
        changes.sort_by_key(|change| change.at);
        // A job without a known creator counts as a user of its own.
        share_files.insert(file, shares(&changes, spans, rules, |job| users.get(job).copied().ok_or(*job)));
    }
    share_files
}

//! Files that jobs share: their links, their levels, and the shares of the jobs.

pub mod shared_files;

use std::collections::{BTreeMap, BTreeSet};

use rating::{
    calendar::span::Span,
    metering::level::LevelChange,
    sharing::{
        file_change::{Change, FileChange},
        rule::Rules,
        shares::{Shares, shares},
    },
};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    read_error::ReadError,
    read_models::{file_links::Links, storage_changes::Changes},
};

/// Which users created jobs; nothing of jobs of nobody known.
pub(crate) type Users = BTreeMap<Uuid, Uuid>;

/// Who created the jobs that use files, where a rule asks whose they are.
pub(crate) async fn users_of(
    connection: &mut PgConnection,
    organization: Uuid,
    rules: &Rules,
    links: &Links,
) -> Result<Users, ReadError> {
    if !rules.ask_whose() {
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

/// How jobs share files in each of `spans`; only of files that were ever linked.
pub(crate) fn shared(
    links: Links,
    mut levels: Changes,
    spans: &[Span],
    rules: &Rules,
    users: &Users,
) -> BTreeMap<Uuid, Shares<Uuid>> {
    let mut shared = BTreeMap::new();
    for (file, mut changes) in links {
        for LevelChange { at, delta } in levels.remove(&file).unwrap_or_default() {
            changes.push(FileChange { at, change: Change::Level(delta) });
        }
        // Those of one instant stay in the order of their events.
        changes.sort_by_key(|change| change.at);
        // A job of nobody known is of a user of its own.
        shared.insert(file, shares(&changes, spans, rules, |job| users.get(job).copied().ok_or(*job)));
    }
    shared
}

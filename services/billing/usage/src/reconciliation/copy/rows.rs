//! Rows of billing's copy: as they are stored, and as derived from the owner's events.
//!
//! Rows may occur twice, and older rows do not name their event. Invariant: a row is placed by the event that
//! creates it, so that each missing, extra or changed row shows separately. The functions of the handlers
//! decode the events. An event that they reject creates no row, since a handler passes a rejected event only
//! when an operator skips it.

use std::collections::{BTreeMap, BTreeSet};

use contracts::{file, job};
use epoch::Envelope;
use epoch_postgres::version_number;
use sqlx::{PgConnection, Row as _};
use uuid::Uuid;

use crate::{
    queries::usage_query::MAX_CHANGES,
    read_error::{ReadError, check_limit},
    read_models::{
        file_links,
        runs::{self, kind_number},
        storage_changes,
    },
    reconciliation::difference::{Comparisons, NOTHING, RowComparison},
};

/// A row of the copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    /// The table and the key; `None` for a row that names no event and has no other key.
    place: Option<String>,
    /// All columns except the key and the event.
    value: String,
    /// The event that created the row, or `None` if the row was stored before event ids were stored.
    event: Option<Uuid>,
}

/// A row derived from an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ExpectedRow {
    /// The subscription that writes the row.
    pub(super) subscription: &'static str,
    /// The version of the event.
    pub(super) version: u64,
    pub(super) organization: Uuid,
    pub(super) row: Row,
}

fn text_of<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "none".to_owned(), |value| value.to_string())
}

fn storage(file: Uuid, organization: Uuid, (at, delta, recorded_at): (i64, i64, i64), event: Option<Uuid>) -> Row {
    let place = event.map(|event| format!("storage_changes file {file} event {event}"));
    let value = format!("organization {organization} at {at} delta {delta} recorded {recorded_at}");
    Row { place, value, event }
}

struct Moment {
    job: Uuid,
    version: i64,
    organization: Uuid,
    kind: i16,
    at: i64,
    recorded_at: i64,
    user: Option<Uuid>,
    machine: Option<Uuid>,
    machine_type: Option<String>,
    event: Option<Uuid>,
}

fn moment(moment: Moment) -> Row {
    let Moment { job, version, organization, kind, at, recorded_at, user, machine, machine_type, event } = moment;
    let (user, machine, machine_type) = (text_of(user), text_of(machine), text_of(machine_type));
    let value = format!(
        "organization {organization} kind {kind} at {at} recorded {recorded_at} user {user} machine {machine} \
         type {machine_type}"
    );
    Row { place: Some(format!("job_moments job {job} version {version}")), value, event }
}

fn metered(job: Uuid, organization: Uuid, configuration: Uuid, user: Option<Uuid>) -> Row {
    let value = format!("organization {organization} configuration {configuration} user {}", text_of(user));
    Row { place: Some(format!("metered_jobs job {job}")), value, event: None }
}

type LinkKey = (Uuid, Uuid, i16, i64);

fn link(
    (file, job, role, version): LinkKey,
    organization: Uuid,
    (at, linked, recorded_at): (i64, bool, i64),
    event: Option<Uuid>,
) -> Row {
    let place = format!("file_link_changes file {file} job {job} role {role} version {version}");
    let value = format!("organization {organization} at {at} linked {linked} recorded {recorded_at}");
    Row { place: Some(place), value, event }
}

/// Derives the rows of an event.
pub(super) fn expected_rows(event: &Envelope) -> Vec<ExpectedRow> {
    let (id, at, recorded) = (event.aggregate_id, event.occurred_at.as_millis(), event.recorded_at.as_millis());
    let (version, by) = (version_number(event.version), Some(event.event_id));
    let mut expected = Vec::new();
    let mut push = |subscription, organization, row| {
        expected.push(ExpectedRow { subscription, version: event.version.get(), organization, row });
    };
    if event.aggregate == file::AGGREGATE {
        if let Ok(Some((organization, delta))) = storage_changes::change(event) {
            push(storage_changes::NAME, organization, storage(id, organization, (at, delta, recorded), by));
        }
        return expected;
    }
    match runs::run_event(event) {
        Ok(Some(runs::RunEvent::Created(created))) => {
            let job::JobCreated { organization_id, job_configuration_id, user_id, .. } = created;
            push(runs::NAME, organization_id, metered(id, organization_id, job_configuration_id, user_id));
        }
        Ok(Some(runs::RunEvent::Moment { organization, kind, started })) => {
            let row = moment(Moment {
                job: id,
                version,
                organization,
                kind: kind_number(kind),
                at,
                recorded_at: recorded,
                user: started.as_ref().and_then(|started| started.user_id),
                machine: started.as_ref().map(|started| started.machine_id),
                machine_type: started.map(|started| started.machine_type),
                event: by,
            });
            push(runs::NAME, organization, row);
        }
        Ok(None) | Err(_) => {}
    }
    if let Ok(Some(links)) = file_links::links_of_event(event) {
        let file_links::EventLinks { organization, files, role, linked } = links;
        for file in BTreeSet::from_iter(files) {
            let key = (file, id, role, version);
            push(file_links::NAME, organization, link(key, organization, (at, linked, recorded), by));
        }
    }
    expected
}

/// Rows by file or job.
pub(super) type Rows = BTreeMap<Uuid, Vec<Row>>;

const STORAGE: &str = "select s.file_id, s.organization_id, s.at, s.delta_bytes, s.recorded_at, s.event_id \
     from unnest($1::uuid[], $2::uuid[]) as u (organization_id, file_id) \
     join storage_changes s using (organization_id, file_id) limit $3";

const MOMENTS: &str = "select job_id, version, organization_id, kind, at, recorded_at, user_id, machine_id, machine_type, \
         event_id from job_moments where job_id = any($1) limit $2";

const METERED: &str =
    "select job_id, organization_id, configuration_id, user_id from metered_jobs where job_id = any($1) limit $2";

const LINKS: &str = include_str!("links_of_jobs.sql");

/// Reads the stored rows of files or jobs, each of which may occur in several organizations.
pub(super) async fn stored_rows(
    connection: &mut PgConnection,
    aggregate: &str,
    ids: &BTreeSet<(Uuid, Uuid)>,
) -> Result<Rows, ReadError> {
    let limit = MAX_CHANGES.saturating_add(1);
    let (organizations, of): (Vec<Uuid>, Vec<Uuid>) = ids.iter().copied().unzip();
    let mut rows = Rows::new();
    let mut count = 0;
    if aggregate == file::AGGREGATE {
        for row in sqlx::query(STORAGE).bind(organizations).bind(of).bind(limit).fetch_all(connection).await? {
            let file = row.try_get("file_id")?;
            let change = (row.try_get("at")?, row.try_get("delta_bytes")?, row.try_get("recorded_at")?);
            rows.entry(file).or_default().push(storage(
                file,
                row.try_get("organization_id")?,
                change,
                row.try_get("event_id")?,
            ));
            count += 1;
        }
        check_limit(count, MAX_CHANGES, "changes of files")?;
        return Ok(rows);
    }
    let jobs: Vec<Uuid> = BTreeSet::from_iter(of.iter().copied()).into_iter().collect();
    for row in sqlx::query(MOMENTS).bind(&jobs).bind(limit).fetch_all(&mut *connection).await? {
        let stored = Moment {
            job: row.try_get("job_id")?,
            version: row.try_get("version")?,
            organization: row.try_get("organization_id")?,
            kind: row.try_get("kind")?,
            at: row.try_get("at")?,
            recorded_at: row.try_get("recorded_at")?,
            user: row.try_get("user_id")?,
            machine: row.try_get("machine_id")?,
            machine_type: row.try_get("machine_type")?,
            event: row.try_get("event_id")?,
        };
        rows.entry(stored.job).or_default().push(moment(stored));
        count += 1;
    }
    for row in sqlx::query(METERED).bind(&jobs).bind(limit).fetch_all(&mut *connection).await? {
        let job = row.try_get("job_id")?;
        let (organization, configuration) = (row.try_get("organization_id")?, row.try_get("configuration_id")?);
        let stored = metered(job, organization, configuration, row.try_get("user_id")?);
        rows.entry(job).or_default().push(stored);
    }
    for row in sqlx::query(LINKS).bind(organizations).bind(of).bind(limit).fetch_all(connection).await? {
        let (file, job) = (row.try_get("file_id")?, row.try_get("job_id")?);
        let key: LinkKey = (file, job, row.try_get("role")?, row.try_get("version")?);
        let change = (row.try_get("at")?, row.try_get("linked")?, row.try_get("recorded_at")?);
        rows.entry(job).or_default().push(link(key, row.try_get("organization_id")?, change, row.try_get("event_id")?));
        count += 1;
    }
    check_limit(count, MAX_CHANGES, "moments and links of jobs")?;
    Ok(rows)
}

/// Compares stored rows with expected rows, by place.
pub(super) fn compare_rows(id: Uuid, stored: Vec<Row>, expected: Vec<Row>) -> Comparisons {
    let mut by_place: BTreeMap<String, (Vec<Row>, Vec<Row>)> = BTreeMap::new();
    let mut without_event = Vec::new();
    for row in expected {
        if let Some(place) = row.place.clone() {
            by_place.entry(place).or_default().1.push(row);
        }
    }
    for row in stored {
        match row.place.clone() {
            Some(place) => by_place.entry(place).or_default().0.push(row),
            None => without_event.push(row),
        }
    }
    for row in without_event {
        // A row without an event matches an expected row with the same value that has no stored row yet.
        let free = by_place.values_mut().find(|(stored, expected)| {
            stored.is_empty() && expected.first().is_some_and(|expected| expected.value == row.value)
        });
        match free {
            Some((stored, _)) => stored.push(row),
            None => by_place.entry(format!("storage_changes file {id} without event")).or_default().0.push(row),
        }
    }
    by_place.into_iter().map(|(place, (stored, expected))| (place, comparison_of(stored, expected))).collect()
}

fn comparison_of(stored: Vec<Row>, expected: Vec<Row>) -> RowComparison {
    let with_events = stored.iter().all(|row| row.event.is_some());
    let all = |rows: Vec<Row>| {
        let text_of = rows.into_iter().map(|Row { value, event, .. }| match event {
            Some(event) if with_events => format!("{value} event {event}"),
            _ => value,
        });
        let mut text_of: Vec<String> = text_of.collect();
        text_of.sort_unstable();
        if text_of.is_empty() { NOTHING.to_owned() } else { text_of.join(", ") }
    };
    RowComparison { stored: all(stored), recomputed: all(expected) }
}

//! The rows of billing's copy: as they are kept, and as the owner's events make them.
//!
//! The problem: two lists of rows must be compared in which some rows are there twice, and some don't say which event they come from.
//!
//! The invariant: a row has its place by the event that makes it, so that a row too many, too few or changed shows by itself. Events are
//! read by the functions that the handlers read them with; one that these refuse makes no row, for a handler that refuses it is passed
//! only by skipping it.

use std::collections::{BTreeMap, BTreeSet};

use contracts::{file, job};
use epoch::Envelope;
use epoch_postgres::version_number;
use sqlx::{PgConnection, Row as _};
use uuid::Uuid;

use crate::{
    queries::question::MAX_CHANGES,
    read_error::{ReadError, bounded},
    read_models::{
        file_links,
        runs::{self, kind_number},
        storage_changes,
    },
    reconciliation::difference::{Compared, NOTHING, Places},
};

/// A row of the copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    /// Which row of which table; `None` for one that doesn't say which event it comes from and has no other key.
    place: Option<String>,
    /// All of its columns but for the key and the event.
    value: String,
    /// Which event it comes from; `None` for what was taken in before this was kept.
    event: Option<Uuid>,
}

/// A row that an event makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Made {
    /// Which subscription writes it.
    pub(super) subscription: &'static str,
    /// The event's version.
    pub(super) version: u64,
    /// Whose it is.
    pub(super) organization: Uuid,
    pub(super) row: Row,
}

fn shown<T: ToString>(value: Option<T>) -> String {
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
    let (user, machine, machine_type) = (shown(user), shown(machine), shown(machine_type));
    let value = format!(
        "organization {organization} kind {kind} at {at} recorded {recorded_at} user {user} machine {machine} \
         type {machine_type}"
    );
    Row { place: Some(format!("job_moments job {job} version {version}")), value, event }
}

fn metered(job: Uuid, organization: Uuid, configuration: Uuid, user: Option<Uuid>) -> Row {
    let value = format!("organization {organization} configuration {configuration} user {}", shown(user));
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

/// The rows that an event makes.
pub(super) fn made(event: &Envelope) -> Vec<Made> {
    let (id, at, recorded) = (event.aggregate_id, event.occurred_at.as_millis(), event.recorded_at.as_millis());
    let (version, by) = (version_number(event.version), Some(event.event_id));
    let mut made = Vec::new();
    let mut push = |subscription, organization, row| {
        made.push(Made { subscription, version: event.version.get(), organization, row });
    };
    if event.aggregate == file::AGGREGATE {
        if let Ok(Some((organization, delta))) = storage_changes::change(event) {
            push(storage_changes::NAME, organization, storage(id, organization, (at, delta, recorded), by));
        }
        return made;
    }
    match runs::told(event) {
        Ok(Some(runs::Told::Created(created))) => {
            let job::JobCreated { organization_id, job_configuration_id, user_id, .. } = created;
            push(runs::NAME, organization_id, metered(id, organization_id, job_configuration_id, user_id));
        }
        Ok(Some(runs::Told::Moment { organization, kind, started })) => {
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
    if let Ok(Some(told)) = file_links::told(event) {
        let file_links::Told { organization, files, role, linked } = told;
        for file in BTreeSet::from_iter(files) {
            let key = (file, id, role, version);
            push(file_links::NAME, organization, link(key, organization, (at, linked, recorded), by));
        }
    }
    made
}

/// Rows by the file or job they are about.
pub(super) type Rows = BTreeMap<Uuid, Vec<Row>>;

const STORAGE: &str = "select s.file_id, s.organization_id, s.at, s.delta_bytes, s.recorded_at, s.event_id \
     from unnest($1::uuid[], $2::uuid[]) as u (organization_id, file_id) \
     join storage_changes s using (organization_id, file_id) limit $3";

const MOMENTS: &str = "select job_id, version, organization_id, kind, at, recorded_at, user_id, machine_id, machine_type, \
         event_id from job_moments where job_id = any($1) limit $2";

const METERED: &str =
    "select job_id, organization_id, configuration_id, user_id from metered_jobs where job_id = any($1) limit $2";

const LINKS: &str = "select l.file_id, l.job_id, l.role, l.version, l.organization_id, l.at, l.linked, l.recorded_at, \
         l.event_id from unnest($1::uuid[], $2::uuid[]) as u (organization_id, job_id) \
     join file_link_changes l using (organization_id, job_id) limit $3";

/// The rows that are kept of files or jobs, each of which may be known in several organizations.
pub(super) async fn kept(
    connection: &mut PgConnection,
    aggregate: &str,
    ids: &BTreeSet<(Uuid, Uuid)>,
) -> Result<Rows, ReadError> {
    let limit = MAX_CHANGES.saturating_add(1);
    let (organizations, of): (Vec<Uuid>, Vec<Uuid>) = ids.iter().copied().unzip();
    let mut rows = Rows::new();
    let mut found = 0;
    if aggregate == file::AGGREGATE {
        for row in sqlx::query(STORAGE).bind(organizations).bind(of).bind(limit).fetch_all(connection).await? {
            let (file, change) = (row.try_get(0)?, (row.try_get(2)?, row.try_get(3)?, row.try_get(4)?));
            rows.entry(file).or_default().push(storage(file, row.try_get(1)?, change, row.try_get(5)?));
            found += 1;
        }
        bounded(found, MAX_CHANGES, "changes of files")?;
        return Ok(rows);
    }
    let jobs: Vec<Uuid> = BTreeSet::from_iter(of.iter().copied()).into_iter().collect();
    for row in sqlx::query(MOMENTS).bind(&jobs).bind(limit).fetch_all(&mut *connection).await? {
        let kept = Moment {
            job: row.try_get(0)?,
            version: row.try_get(1)?,
            organization: row.try_get(2)?,
            kind: row.try_get(3)?,
            at: row.try_get(4)?,
            recorded_at: row.try_get(5)?,
            user: row.try_get(6)?,
            machine: row.try_get(7)?,
            machine_type: row.try_get(8)?,
            event: row.try_get(9)?,
        };
        rows.entry(kept.job).or_default().push(moment(kept));
        found += 1;
    }
    for row in sqlx::query(METERED).bind(&jobs).bind(limit).fetch_all(&mut *connection).await? {
        let job = row.try_get(0)?;
        let kept = metered(job, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
        rows.entry(job).or_default().push(kept);
    }
    for row in sqlx::query(LINKS).bind(organizations).bind(of).bind(limit).fetch_all(connection).await? {
        let key: LinkKey = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
        let said = (row.try_get(5)?, row.try_get(6)?, row.try_get(7)?);
        rows.entry(key.1).or_default().push(link(key, row.try_get(4)?, said, row.try_get(8)?));
        found += 1;
    }
    bounded(found, MAX_CHANGES, "moments and links of jobs")?;
    Ok(rows)
}

/// What is kept beside what should be, by place.
pub(super) fn compared(id: Uuid, kept: Vec<Row>, made: Vec<Row>) -> Places {
    let mut by_place: BTreeMap<String, (Vec<Row>, Vec<Row>)> = BTreeMap::new();
    let mut without_event = Vec::new();
    for row in made {
        if let Some(place) = row.place.clone() {
            by_place.entry(place).or_default().1.push(row);
        }
    }
    for row in kept {
        match row.place.clone() {
            Some(place) => by_place.entry(place).or_default().0.push(row),
            None => without_event.push(row),
        }
    }
    for row in without_event {
        // It stands for an event that says the same and has no row yet, if there is one.
        let free = by_place
            .values_mut()
            .find(|(kept, made)| kept.is_empty() && made.first().is_some_and(|made| made.value == row.value));
        match free {
            Some((kept, _)) => kept.push(row),
            None => by_place.entry(format!("storage_changes file {id} of no event")).or_default().0.push(row),
        }
    }
    by_place.into_iter().map(|(place, (kept, made))| (place, shown_beside(kept, made))).collect()
}

fn shown_beside(kept: Vec<Row>, made: Vec<Row>) -> Compared {
    let with_events = kept.iter().all(|row| row.event.is_some());
    let all = |rows: Vec<Row>| {
        let shown = rows.into_iter().map(|Row { value, event, .. }| match event {
            Some(event) if with_events => format!("{value} event {event}"),
            _ => value,
        });
        let mut shown: Vec<String> = shown.collect();
        shown.sort_unstable();
        if shown.is_empty() { NOTHING.to_owned() } else { shown.join(", ") }
    };
    Compared { kept: all(kept), recomputed: all(made) }
}

//! Comparison of the read models of accounts, plans and invoices with billing's own events.
//!
//! These rows drive simulations, budget checks and lists. A missing or wrong row looks like a missing or
//! different account, plan or invoice.
//!
//! Invariant: the aggregate folds its own events up to the version of the projection's cursor, and its state
//! determines whether there is a row and each column of it. The row is read in one snapshot with the cursor.
//! Events the projection has not applied yet are no difference until they are a day old. A step walks the ids
//! of the log and of the tables together, by their indexes, so that both an aggregate without a row and a row
//! without an aggregate show.

mod columns;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use epoch::{
    Timestamp, Versions,
    event::CodecError,
    gate::Cursor,
    store::{StoreError, Streamer},
};
use epoch_postgres::{PgStore, Projection, read_cursors};
use futures::TryStreamExt;
use rating::{account::Account, invoice::InvoiceState, pricing::plan_aggregate::PlanCatalogue};
use sqlx::{PgConnection, Row, types::Json};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::columns::{Columns, ListedAggregate};
use crate::{
    read_error::ReadError,
    read_models::accounts::Accounts,
    reconciliation::{
        difference::{Areas, Comparisons, NOTHING, RowComparison, Side, millis, record_differences, report},
        due::{MAX_DELAY, versions},
        step::{INTERVAL, StepOutcome},
    },
};

/// The number of ids a step takes from the log and from each table.
const PAGE: u32 = 50;
/// The number of known differences a step checks again.
const KNOWN_DIFFERENCES: i64 = 20;
/// A step ends with the id at which its events reach this number.
const EVENTS: usize = 20_000;

/// Locks precede the first read, so that the transaction sees the swap of a rebuild as a whole or waits for
/// it.
const BEGIN_SNAPSHOT: &str = "begin isolation level repeatable read read only; \
     lock table billing_accounts, plans, invoices in access share mode";

/// Reasons a step fails.
#[derive(Debug, thiserror::Error)]
pub enum AccountsError {
    /// The read models cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The event log or the cursors cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for AccountsError {
    fn from(error: sqlx::Error) -> Self {
        Self::Read(error.into())
    }
}

/// Reasons the events of an aggregate do not fold to a state. The error concerns this aggregate alone and
/// holds up no other.
#[derive(Debug, thiserror::Error)]
enum FoldError {
    #[error(transparent)]
    Store(StoreError),
    #[error("version {version} cannot be decoded: {source}")]
    Unreadable { version: u64, source: CodecError },
    #[error("version {version} follows version {after}")]
    VersionGap { version: u64, after: usize },
}

/// The kinds of rows, in the order in which a step compares them for one id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Kind {
    Account,
    Plan,
    Invoice,
}

const KINDS: [Kind; 3] = [Kind::Account, Kind::Plan, Kind::Invoice];

impl Kind {
    fn list(self) -> List {
        match self {
            Self::Account => List::of::<Account>(),
            Self::Plan => List::of::<PlanCatalogue>(),
            Self::Invoice => List::of::<InvoiceState>(),
        }
    }

    fn aggregate(self) -> &'static str {
        self.list().aggregate
    }

    async fn fold(self, store: &PgStore, id: Uuid, cursor: Cursor) -> Result<FoldedAggregate, FoldError> {
        match self {
            Self::Account => fold::<Account>(store, id, cursor).await,
            Self::Plan => fold::<PlanCatalogue>(store, id, cursor).await,
            Self::Invoice => fold::<InvoiceState>(store, id, cursor).await,
        }
    }

    fn area(self, id: Uuid) -> String {
        format!("{} {id}", self.aggregate())
    }

    fn of_area(area: &str) -> Option<(Uuid, Self)> {
        let (aggregate, id) = area.split_once(' ')?;
        Some((id.parse().ok()?, KINDS.into_iter().find(|kind| kind.aggregate() == aggregate)?))
    }
}

/// The table of a kind, and the statements that read it.
struct List {
    aggregate: &'static str,
    table: &'static str,
    ids: &'static str,
    rows: &'static str,
}

impl List {
    fn of<A: ListedAggregate>() -> Self {
        Self { aggregate: A::NAME, table: A::TABLE, ids: A::IDS, rows: A::ROWS }
    }
}

/// The key of a row: by id, then by kind.
type Key = (Uuid, Kind);

/// The findings of a step.
#[derive(Default)]
struct StepFindings {
    areas: Areas,
    /// The organization of each area, if it has one.
    organizations: BTreeMap<String, Uuid>,
}

/// Takes steps until `stop` is cancelled.
///
/// # Errors
/// [`AccountsError`], to be restarted by the caller.
pub async fn run(store: PgStore, stop: CancellationToken) -> Result<(), AccountsError> {
    while stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_some() {
        let Some(findings) = stop.run_until_cancelled(check_next(&store)).await else { break };
        let result = findings?.result();
        metrics::counter!("billing_reconciliation_checks_total", "side" => "accounts", "result" => result).increment(1);
        report(store.pool(), Side::Accounts).await?;
    }
    Ok(())
}

/// Takes a step, unless another process is taking one.
///
/// # Errors
/// [`AccountsError`].
pub async fn check_next(store: &PgStore) -> Result<StepOutcome, AccountsError> {
    let mut turn = epoch_postgres::begin(store.pool(), "begin").await?;
    let state = sqlx::query("select round, listed from reconciliation_accounts for update skip locked");
    let Some(state) = state.fetch_optional(&mut *turn).await? else { return Ok(StepOutcome::Elsewhere) };
    let (round, listed): (i64, Option<Uuid>) = (state.try_get("round")?, state.try_get("listed")?);

    let mut findings = StepFindings::default();
    let differing = known_differences(&mut turn).await?;
    compare(store, &differing, usize::MAX, &mut findings).await?;
    let (page, next) = page(store, listed.unwrap_or_default()).await?;
    let next = compare(store, &page, EVENTS, &mut findings).await?.or(next);

    let now = Timestamp::now().as_millis();
    let rows: usize = findings.areas.values().map(BTreeMap::len).sum();
    let update = include_str!("accounts/record_step.sql");
    sqlx::query(update)
        .bind(i64::try_from(rows).unwrap_or(i64::MAX))
        .bind(now)
        .bind(next)
        .bind(round + i64::from(next.is_none()))
        .execute(&mut *turn)
        .await?;
    let of = |area: &str| findings.organizations.get(area).copied().unwrap_or_default();
    let differences = record_differences(&mut turn, Side::Accounts, of, &findings.areas, now).await?;
    turn.commit().await?;
    Ok(StepOutcome::Compared { rows, differences })
}

/// Lists known differences, starting with those checked least recently.
async fn known_differences(connection: &mut PgConnection) -> Result<BTreeSet<Key>, AccountsError> {
    let query =
        "select area from reconciliation_differences where side = $1 group by area order by min(seen_at) limit $2";
    let query = sqlx::query_scalar(query).bind(Side::Accounts.name()).bind(KNOWN_DIFFERENCES);
    let areas: Vec<String> = query.fetch_all(connection).await?;
    Ok(areas.iter().filter_map(|area| Kind::of_area(area)).collect())
}

/// Lists the keys after an id in the log and in the tables, and the id to continue after, or `None` at the
/// end.
async fn page(store: &PgStore, after: Uuid) -> Result<(BTreeSet<Key>, Option<Uuid>), AccountsError> {
    let (mut keys, mut ends) = (BTreeSet::new(), Vec::new());
    for kind in KINDS {
        let streams = store.ends(kind.aggregate(), after, PAGE).await?;
        keys.extend(streams.ends.iter().map(|end| (end.id, kind)));
        ends.extend(streams.next);
        let query = kind.list().ids;
        let query = sqlx::query_scalar(query).bind(after).bind(i64::from(PAGE));
        let rows: Vec<Uuid> = query.fetch_all(store.pool()).await?;
        ends.extend(rows.last().filter(|_| u32::try_from(rows.len()).is_ok_and(|count| count >= PAGE)));
        keys.extend(rows.into_iter().map(|id| (id, kind)));
    }
    // The page is complete only up to the first of the ends.
    let next = ends.into_iter().min();
    keys.retain(|(id, _)| next.is_none_or(|next| *id <= next));
    Ok((keys, next))
}

/// Compares rows with folded events. Returns the last id compared if more follow but the step has read enough
/// events.
async fn compare(
    store: &PgStore,
    keys: &BTreeSet<Key>,
    max_events: usize,
    findings: &mut StepFindings,
) -> Result<Option<Uuid>, AccountsError> {
    let mut stored = stored_rows(store, keys).await?;
    let due = Timestamp::now().as_millis().saturating_sub(millis(MAX_DELAY));
    let mut events = 0_usize;
    let mut before: Option<Uuid> = None;
    for (id, kind) in keys {
        if events >= max_events && before.is_some_and(|before| before != *id) {
            return Ok(before);
        }
        before = Some(*id);
        let StoredRow { row, cursor } = stored.remove(&(*id, *kind)).unwrap_or_default();
        let area = kind.area(*id);
        let folded = match kind.fold(store, *id, cursor).await {
            Ok(folded) => folded,
            Err(FoldError::Store(error)) => return Err(error.into()),
            Err(error) => {
                let compared =
                    RowComparison { stored: "events without gaps".to_owned(), recomputed: error.to_string() };
                findings.areas.insert(area.clone(), Comparisons::from([(format!("stream of {area}"), compared)]));
                continue;
            }
        };
        events = events.saturating_add(folded.recorded.len());
        let rows = RowComparison { stored: row_text(row.as_ref()), recomputed: row_text(folded.row.as_ref()) };
        let table = kind.list().table;
        let comparisons = Comparisons::from([
            (format!("{table} {id}"), rows),
            (format!("cursors of {} {area}", Accounts::NAME), versions(&folded.recorded, cursor, due)),
        ]);
        findings.organizations.extend(folded.organization.map(|organization| (area.clone(), organization)));
        findings.areas.insert(area, comparisons);
    }
    Ok(None)
}

/// The stored row of an aggregate and the cursor of the projection.
#[derive(Default)]
struct StoredRow {
    row: Option<Columns>,
    cursor: Cursor,
}

/// Reads rows and cursors in one snapshot.
async fn stored_rows(store: &PgStore, keys: &BTreeSet<Key>) -> Result<HashMap<Key, StoredRow>, AccountsError> {
    let mut all: HashMap<Key, StoredRow> = HashMap::new();
    let mut tx = epoch_postgres::begin(store.pool(), BEGIN_SNAPSHOT).await?;
    for kind in KINDS {
        let ids: Vec<Uuid> = keys.iter().filter(|(_, of)| *of == kind).map(|(id, _)| *id).collect();
        for (id, cursor) in read_cursors(&mut tx, Accounts::NAME, kind.aggregate(), &ids).await? {
            all.entry((id, kind)).or_default().cursor = cursor;
        }
        let query = kind.list().rows;
        let rows: Vec<(Uuid, Json<Columns>)> = sqlx::query_as(query).bind(&ids).fetch_all(&mut *tx).await?;
        for (id, Json(columns)) in rows {
            all.entry((id, kind)).or_default().row = Some(columns);
        }
    }
    tx.commit().await?;
    Ok(all)
}

/// The state of an aggregate folded from its events.
struct FoldedAggregate {
    row: Option<Columns>,
    organization: Option<Uuid>,
    /// When each event was recorded, starting with version 1, including events the projection has not
    /// applied.
    recorded: Vec<i64>,
}

/// Reads the events of an aggregate, and folds those that the projection has applied.
async fn fold<A: ListedAggregate>(store: &PgStore, id: Uuid, cursor: Cursor) -> Result<FoldedAggregate, FoldError> {
    let (mut state, mut first, mut applied, mut recorded) = (A::default(), None, 0, Vec::new());
    let mut events = store.read(A::NAME, id, Versions::all());
    while let Some(event) = events.try_next().await.map_err(FoldError::Store)? {
        let version = event.version.get();
        if version != recorded.len() as u64 + 1 {
            return Err(FoldError::VersionGap { version, after: recorded.len() });
        }
        recorded.push(event.recorded_at.as_millis());
        first = first.or(Some(event.occurred_at));
        if event.version <= cursor.version {
            applied = version;
            state.evolve(&event.decode().map_err(|source| FoldError::Unreadable { version, source })?);
        }
    }
    let row = first.and_then(|first| state.row(applied, first));
    Ok(FoldedAggregate { row, organization: state.organization(id), recorded })
}

fn row_text(row: Option<&Columns>) -> String {
    let Some(row) = row else { return NOTHING.to_owned() };
    let columns: Vec<_> = row.iter().map(|(column, value)| format!("{column} {value}")).collect();
    columns.join(" ")
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::{KINDS, Kind};

    #[test]
    fn area_name_identifies_the_row() {
        let id = Uuid::now_v7();
        for kind in KINDS {
            assert_eq!(Kind::of_area(&kind.area(id)), Some((id, kind)));
        }
        assert_eq!(Kind::of_area("file 1"), None);
    }
}

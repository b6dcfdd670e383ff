//! Whether the read models of accounts, plans and invoices are what billing's own events make.
//!
//! The problem: these rows say which accounts are simulated and looked at for budgets, and what lists show; one that is missing or wrong
//! looks like an account, a plan or an invoice that isn't there, or is another.
//!
//! The invariant: the events of an aggregate, folded by the aggregate itself up to the version that the projection's cursor is at, say what
//! its row is, column by column, and whether there is one; the row is read in one snapshot with the cursor. What the projection hasn't had
//! yet is no difference, unless it is a day old. The ids of the log and of the tables are walked together, a part a step and by their
//! indexes alone, so that an aggregate without a row shows, and a row without an aggregate.

mod columns;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use epoch::{
    Timestamp, Versions,
    event::CodecError,
    gate::Cursor,
    store::{StoreError, Streamer},
};
use epoch_postgres::{PgStore, read_cursors};
use futures::TryStreamExt;
use rating::{account::Account, invoice::InvoiceState, pricing::plan_aggregate::PlanCatalogue};
use serde_json::Value;
use sqlx::{PgConnection, Row, types::Json};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::columns::{Columns, Listed};
use crate::{
    read_error::ReadError,
    read_models::accounts::Accounts,
    reconciliation::{
        difference::{Areas, Compared, NOTHING, Places, Side, millis, note, report},
        due::{AT_MOST, versions},
        step::{INTERVAL, Look},
    },
};

/// How many ids of the log, and of each table, are looked at in a step.
const PAGE: u32 = 50;
/// How many that were wrong are looked at again in a step.
const WRONG: i64 = 20;
/// A step ends with the id whose events bring it to so many.
const EVENTS: usize = 20_000;

/// Locks come before what is seen, so that the swap of a rebuild either is seen whole or waits.
const AT_ONE_MOMENT: &str = "begin isolation level repeatable read read only; \
     lock table billing_accounts, plans, invoices in access share mode";

/// Why a step could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum AccountsError {
    /// The read models can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The log or the cursors can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for AccountsError {
    fn from(error: sqlx::Error) -> Self {
        Self::Read(error.into())
    }
}

/// Why an aggregate's events come to no state. That is about this aggregate alone, and holds up no other.
#[derive(Debug, thiserror::Error)]
enum Unfolded {
    #[error(transparent)]
    Store(StoreError),
    #[error("version {version} can't be read: {source}")]
    Unreadable { version: u64, source: CodecError },
    #[error("version {version} comes after {after}")]
    Hole { version: u64, after: usize },
}

/// What has a row. They are looked at in this order of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Kind {
    Account,
    Plan,
    Invoice,
}

/// Does the same for the aggregate of a kind.
macro_rules! for_kind {
    ($kind:expr, $aggregate:ident => $do:expr) => {
        match $kind {
            Kind::Account => {
                type $aggregate = Account;
                $do
            }
            Kind::Plan => {
                type $aggregate = PlanCatalogue;
                $do
            }
            Kind::Invoice => {
                type $aggregate = InvoiceState;
                $do
            }
        }
    };
}

const KINDS: [Kind; 3] = [Kind::Account, Kind::Plan, Kind::Invoice];

impl Kind {
    fn aggregate(self) -> &'static str {
        for_kind!(self, A => <A as epoch::Aggregate>::NAME)
    }

    fn area(self, id: Uuid) -> String {
        format!("{} {id}", self.aggregate())
    }

    fn of_area(area: &str) -> Option<(Uuid, Self)> {
        let (aggregate, id) = area.split_once(' ')?;
        Some((id.parse().ok()?, KINDS.into_iter().find(|kind| kind.aggregate() == aggregate)?))
    }
}

/// Which row, and how it is looked at: by id, then by kind.
type Key = (Uuid, Kind);

/// What a step looked at.
#[derive(Default)]
struct Looked {
    areas: Areas,
    /// Whose each area is, where it is somebody's.
    organizations: BTreeMap<String, Uuid>,
}

/// Checks until it is told to stop.
///
/// # Errors
/// [`AccountsError`], to be started again.
pub async fn run(store: PgStore, stop: CancellationToken) -> Result<(), AccountsError> {
    while stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_some() {
        let Some(looked) = stop.run_until_cancelled(check_next(&store)).await else { break };
        let result = looked?.result();
        metrics::counter!("billing_reconciliation_checks_total", "side" => "accounts", "result" => result).increment(1);
        report(store.pool(), Side::Accounts).await?;
    }
    Ok(())
}

/// Takes a step, unless another process is taking one.
///
/// # Errors
/// [`AccountsError`].
pub async fn check_next(store: &PgStore) -> Result<Look, AccountsError> {
    let mut turn = epoch_postgres::begin(store.pool(), "begin").await?;
    let state = sqlx::query("select round, listed from reconciliation_accounts for update skip locked");
    let Some(state) = state.fetch_optional(&mut *turn).await? else { return Ok(Look::Elsewhere) };
    let (round, listed): (i64, Option<Uuid>) = (state.try_get("round")?, state.try_get("listed")?);

    let mut looked = Looked::default();
    let wrong = wrong(&mut turn).await?;
    look(store, &wrong, usize::MAX, &mut looked).await?;
    let (page, next) = page(store, listed.unwrap_or_default()).await?;
    let next = look(store, &page, EVENTS, &mut looked).await?.or(next);

    let now = Timestamp::now().as_millis();
    let rows: usize = looked.areas.values().map(BTreeMap::len).sum();
    let update = "update reconciliation_accounts set checks = checks + 1, rows_compared = rows_compared + $1, \
             last_check_at = $2, listed = $3, round = $4, \
             round_began_at = case when round = $4 then coalesce(round_began_at, $2) else $2 end";
    sqlx::query(update)
        .bind(i64::try_from(rows).unwrap_or(i64::MAX))
        .bind(now)
        .bind(next)
        .bind(round + i64::from(next.is_none()))
        .execute(&mut *turn)
        .await?;
    let of = |area: &str| looked.organizations.get(area).copied().unwrap_or_default();
    let differences = note(&mut turn, Side::Accounts, of, &looked.areas, now).await?;
    turn.commit().await?;
    Ok(Look::Compared { rows, differences })
}

/// Those that were found to be wrong, those first that were looked at least lately.
async fn wrong(connection: &mut PgConnection) -> Result<BTreeSet<Key>, AccountsError> {
    let query =
        "select area from reconciliation_differences where side = $1 group by area order by min(seen_at) limit $2";
    let query = sqlx::query_scalar(query).bind(Side::Accounts.name()).bind(WRONG);
    let areas: Vec<String> = query.fetch_all(connection).await?;
    Ok(areas.iter().filter_map(|area| Kind::of_area(area)).collect())
}

/// What comes after an id, in the log or in a table, and the id after which to go on; `None` when there is nothing more.
async fn page(store: &PgStore, after: Uuid) -> Result<(BTreeSet<Key>, Option<Uuid>), AccountsError> {
    let (mut keys, mut ends) = (BTreeSet::new(), Vec::new());
    for kind in KINDS {
        let streams = store.ends(kind.aggregate(), after, PAGE).await?;
        keys.extend(streams.ends.iter().map(|end| (end.id, kind)));
        ends.extend(streams.next);
        let query = for_kind!(kind, A => <A as Listed>::IDS);
        let query = sqlx::query_scalar(query).bind(after).bind(i64::from(PAGE));
        let rows: Vec<Uuid> = query.fetch_all(store.pool()).await?;
        ends.extend(rows.last().filter(|_| u32::try_from(rows.len()).is_ok_and(|found| found >= PAGE)));
        keys.extend(rows.into_iter().map(|id| (id, kind)));
    }
    // All that there is up to the first of the ends is known, and no more.
    let next = ends.into_iter().min();
    keys.retain(|(id, _)| next.is_none_or(|next| *id <= next));
    Ok((keys, next))
}

/// Compares rows with what their events make. Gives the last id that was looked at, if others come after it that weren't, since there
/// were so many events.
async fn look(
    store: &PgStore,
    keys: &BTreeSet<Key>,
    most: usize,
    looked: &mut Looked,
) -> Result<Option<Uuid>, AccountsError> {
    let mut kept = kept(store, keys).await?;
    let due = Timestamp::now().as_millis().saturating_sub(millis(AT_MOST));
    let mut events = 0_usize;
    let mut before: Option<Uuid> = None;
    for (id, kind) in keys {
        if events >= most && before.is_some_and(|before| before != *id) {
            return Ok(before);
        }
        before = Some(*id);
        let Kept { row, cursor } = kept.remove(&(*id, *kind)).unwrap_or_default();
        let area = kind.area(*id);
        let made = match for_kind!(*kind, A => folded::<A>(store, *id, cursor).await) {
            Ok(made) => made,
            Err(Unfolded::Store(error)) => return Err(error.into()),
            Err(error) => {
                let compared = Compared { kept: "events without holes".to_owned(), recomputed: error.to_string() };
                looked.areas.insert(area.clone(), Places::from([(format!("stream of {area}"), compared)]));
                continue;
            }
        };
        events = events.saturating_add(made.recorded.len());
        let rows = Compared { kept: shown(row.as_ref()), recomputed: shown(made.row.as_ref()) };
        let table = for_kind!(*kind, A => <A as Listed>::TABLE);
        let places = Places::from([
            (format!("{table} {id}"), rows),
            (format!("cursors of {} {area}", Accounts::NAME), versions(&made.recorded, cursor, due)),
        ]);
        looked.organizations.extend(made.organization.map(|organization| (area.clone(), organization)));
        looked.areas.insert(area, places);
    }
    Ok(None)
}

/// What there is of an aggregate beside its events.
#[derive(Default)]
struct Kept {
    row: Option<Columns>,
    cursor: Cursor,
}

/// Rows and cursors, as they are in one snapshot.
async fn kept(store: &PgStore, keys: &BTreeSet<Key>) -> Result<HashMap<Key, Kept>, AccountsError> {
    let mut all: HashMap<Key, Kept> = HashMap::new();
    let mut tx = epoch_postgres::begin(store.pool(), AT_ONE_MOMENT).await?;
    for kind in KINDS {
        let ids: Vec<Uuid> = keys.iter().filter(|(_, of)| *of == kind).map(|(id, _)| *id).collect();
        for (id, cursor) in read_cursors(&mut tx, Accounts::NAME, kind.aggregate(), &ids).await? {
            all.entry((id, kind)).or_default().cursor = cursor;
        }
        let query = for_kind!(kind, A => <A as Listed>::ROWS);
        for row in &sqlx::query(query).bind(&ids).fetch_all(&mut *tx).await? {
            let Json(columns): Json<BTreeMap<String, Value>> = row.try_get(1)?;
            all.entry((row.try_get(0)?, kind)).or_default().row = Some(columns);
        }
    }
    tx.commit().await?;
    Ok(all)
}

/// What the events of an aggregate come to.
struct Made {
    row: Option<Columns>,
    /// Whose it is.
    organization: Option<Uuid>,
    /// When each event was recorded, from version 1 on; also of those that the projection hasn't had.
    recorded: Vec<i64>,
}

/// Reads an aggregate's events, and folds those that the projection has had.
async fn folded<A: Listed>(store: &PgStore, id: Uuid, cursor: Cursor) -> Result<Made, Unfolded> {
    let (mut state, mut first, mut had, mut recorded) = (A::default(), None, 0, Vec::new());
    let mut events = store.read(A::NAME, id, Versions::all());
    while let Some(event) = events.try_next().await.map_err(Unfolded::Store)? {
        let version = event.version.get();
        if version != recorded.len() as u64 + 1 {
            return Err(Unfolded::Hole { version, after: recorded.len() });
        }
        recorded.push(event.recorded_at.as_millis());
        first = first.or(Some(event.occurred_at));
        if event.version <= cursor.version {
            had = version;
            state.evolve(&event.decode().map_err(|source| Unfolded::Unreadable { version, source })?);
        }
    }
    let row = first.and_then(|first| state.row(had, first));
    Ok(Made { row, organization: state.organization(id), recorded })
}

fn shown(row: Option<&Columns>) -> String {
    let Some(row) = row else { return NOTHING.to_owned() };
    let columns: Vec<_> = row.iter().map(|(column, value)| format!("{column} {value}")).collect();
    columns.join(" ")
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::{KINDS, Kind};

    #[test]
    fn an_area_says_which_row() {
        let id = Uuid::now_v7();
        for kind in KINDS {
            assert_eq!(Kind::of_area(&kind.area(id)), Some((id, kind)));
        }
        assert_eq!(Kind::of_area("file 1"), None);
    }
}

//! Epoch's SQL functions, kept as files in `sql/functions/` and applied after the migrations.
//!
//! A change edits the function's file and increments [`REVISION`]; it is never copied into a migration. During a
//! rolling update, processes of two releases share one schema, so a file may never change the signature or the meaning
//! of a function that a release calls: a new signature is a new function, and the earlier one stays until no release
//! calls it.
//!
//! `create or replace` takes locks and leaves dead rows in `pg_proc`. The files are therefore applied only when the
//! stored revision is older, or has the same number and another fingerprint. A process with an older revision leaves
//! the newer functions in place.

use epoch::Timestamp;
use sqlx::{Connection, FromRow, PgConnection};

/// The number of this set of functions. Increment it with every change of a file.
pub(crate) const REVISION: i64 = 2;

pub(crate) const FUNCTIONS: &[&str] = &[
    include_str!("../../sql/functions/epoch_append.sql"),
    include_str!("../../sql/functions/epoch_append_without_previous.sql"),
    include_str!("../../sql/functions/epoch_behind.sql"),
    include_str!("../../sql/functions/epoch_clone_tables.sql"),
    include_str!("../../sql/functions/epoch_gate.sql"),
    include_str!("../../sql/functions/epoch_enter.sql"),
    include_str!("../../sql/functions/epoch_follow.sql"),
    include_str!("../../sql/functions/epoch_follow_next.sql"),
    include_str!("../../sql/functions/epoch_lag.sql"),
    include_str!("../../sql/functions/epoch_lock.sql"),
    include_str!("../../sql/functions/epoch_lock_sagas.sql"),
    include_str!("../../sql/functions/epoch_move.sql"),
    include_str!("../../sql/functions/epoch_page.sql"),
    include_str!("../../sql/functions/epoch_serving.sql"),
    include_str!("../../sql/functions/epoch_swap_tables.sql"),
    include_str!("../../sql/functions/epoch_table_shape.sql"),
];

/// The set of functions that the schema has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRow)]
struct AppliedFunctions {
    revision: i64,
    fingerprint: i64,
}

impl AppliedFunctions {
    /// Returns whether this process must apply its own set.
    fn is_outdated(self, fingerprint: i64) -> bool {
        self.revision < REVISION || (self.revision == REVISION && self.fingerprint != fingerprint)
    }
}

/// Applies the functions in one transaction if the schema has an older set. The caller holds the migration lock.
pub(crate) async fn apply(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let fingerprint = fingerprint(FUNCTIONS);
    let query = "select revision, fingerprint from epoch_functions";
    let applied: Option<AppliedFunctions> = sqlx::query_as(query).fetch_optional(&mut *connection).await?;
    if applied.is_some_and(|applied| !applied.is_outdated(fingerprint)) {
        return Ok(());
    }
    let mut transaction = connection.begin().await?;
    for function in FUNCTIONS {
        sqlx::raw_sql(*function).execute(&mut *transaction).await?;
    }
    sqlx::query(include_str!("sql/store_functions_revision.sql"))
        .bind(REVISION)
        .bind(fingerprint)
        .bind(Timestamp::now().as_millis())
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await
}

/// Returns the 64-bit FNV-1a hash of the texts, as a signed number.
pub(crate) fn fingerprint(texts: &[&str]) -> i64 {
    const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let bytes = texts.iter().flat_map(|text| text.bytes());
    bytes.fold(OFFSET_BASIS, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME)).cast_signed()
}

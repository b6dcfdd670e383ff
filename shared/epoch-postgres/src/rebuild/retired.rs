//! Deleting the cursors and dead letters of retired generations.

use crate::{rebuild::error::RebuildError, store::pg_store::PgStore};

/// How many rows one statement deletes.
const PAGE: i64 = 5_000;

/// Deletes the rows of a subscription's retired generations, page by page. Skipped dead letters stay as a record.
pub(super) async fn delete_retired_rows(store: &PgStore, subscription: &str) -> Result<(), RebuildError> {
    let query = "select key from generations where subscription = $1 and state = 'retired'";
    let keys: Vec<String> = sqlx::query_scalar(query).bind(subscription).fetch_all(store.pool()).await?;
    for key in keys {
        for delete in
            [include_str!("sql/delete_retired_cursors.sql"), include_str!("sql/delete_retired_dead_letters.sql")]
        {
            loop {
                let deleted = sqlx::query(delete).bind(&key).bind(PAGE).execute(store.pool()).await?;
                if deleted.rows_affected() == 0 {
                    break;
                }
            }
        }
    }
    Ok(())
}

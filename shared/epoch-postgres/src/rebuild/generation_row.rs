//! The generation that is being built: its row, its schema and its tables.
//!
//! All three appear in one transaction and disappear in one transaction.

use epoch::Timestamp;
use sqlx::{Connection, FromRow, PgConnection};

use crate::{
    delivery::generations,
    rebuild::error::{RebuildError, tables_error},
};

/// The row of a generation that is being built.
#[derive(FromRow)]
pub(super) struct BuildingRow {
    #[sqlx(rename = "generation")]
    pub(super) number: i64,
    pub(super) revision: i64,
    pub(super) schema: String,
    /// The position up to which earlier attempts have read the log.
    pub(super) position: i64,
}

pub(super) async fn find(
    connection: &mut PgConnection,
    subscription: &str,
) -> Result<Option<BuildingRow>, sqlx::Error> {
    let query = sqlx::query_as(include_str!("sql/building_generation.sql"));
    query.bind(subscription).fetch_optional(connection).await
}

/// Creates a generation in the schema `{home}_g{number}_{subscription}` with empty copies of `tables`.
pub(super) async fn create(
    connection: &mut PgConnection,
    subscription: &str,
    revision: i64,
    home: &str,
    tables: &[&str],
) -> Result<BuildingRow, RebuildError> {
    /// Postgres truncates longer names.
    const MAX_NAME: usize = 63;
    let mut tx = connection.begin().await?;
    let query = "select max(generation) + 1 from generations where subscription = $1";
    let number: i64 = sqlx::query_scalar(query).bind(subscription).fetch_one(&mut *tx).await?;
    let schema: String = format!("{home}_g{number}_{subscription}").chars().take(MAX_NAME).collect();
    let cloned = sqlx::query("select epoch_clone_tables($1, $2)").bind(&schema).bind(tables).execute(&mut *tx).await;
    cloned.map_err(|error| tables_error(subscription, error))?;
    sqlx::query(include_str!("sql/insert_generation.sql"))
        .bind(subscription)
        .bind(number)
        .bind(revision)
        .bind(generations::key(subscription, number))
        .bind(&schema)
        .bind(Timestamp::now().as_millis())
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(BuildingRow { number, revision, schema, position: 0 })
}

/// Retires a generation and drops its schema.
pub(super) async fn discard(
    connection: &mut PgConnection,
    subscription: &str,
    row: &BuildingRow,
) -> Result<(), RebuildError> {
    let mut tx = connection.begin().await?;
    retire(&mut tx, subscription, row.number).await?;
    let query = "select format('drop schema %I cascade', $1)";
    let drop: String = sqlx::query_scalar(query).bind(&row.schema).fetch_one(&mut *tx).await?;
    sqlx::raw_sql(sqlx::AssertSqlSafe(drop)).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(())
}

/// Marks a generation as retired.
pub(super) async fn retire(connection: &mut PgConnection, subscription: &str, number: i64) -> Result<(), sqlx::Error> {
    let query = sqlx::query(include_str!("sql/retire_generation.sql")).bind(subscription).bind(number);
    query.bind(Timestamp::now().as_millis()).execute(connection).await?;
    Ok(())
}

/// Returns whether the tables that are being built still match the serving ones.
pub(super) async fn has_same_shape(
    connection: &mut PgConnection,
    schema: &str,
    tables: &[&str],
) -> Result<bool, sqlx::Error> {
    let home = current_schema(connection).await?;
    let query = sqlx::query_scalar(include_str!("sql/has_same_shape.sql"));
    let query = query.bind(search_path(schema, &home)).bind(format!("\"{home}\"")).bind(tables);
    query.bind(schema).fetch_one(connection).await
}

/// Returns a search path of two schemas, quoted.
pub(super) fn search_path(schema: &str, home: &str) -> String {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    format!("{},{}", quoted(schema), quoted(home))
}

pub(super) async fn current_schema(connection: &mut PgConnection) -> Result<String, sqlx::Error> {
    sqlx::query_scalar("select current_schema()::text").fetch_one(connection).await
}

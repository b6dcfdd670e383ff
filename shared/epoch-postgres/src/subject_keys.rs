//! Keys of persons in the database.
//!
//! The problem: two processes may want the first key of a person at once, while a third forgets the person.
//! The invariant: one row a person, for ever; its first writer decides, and a tombstone is never overwritten.

use async_trait::async_trait;
use epoch::{
    Timestamp,
    personal::{KeyStore, KeyStoreError, SubjectKey, WrappedKey},
};
use sqlx::{PgPool, Row, postgres::PgRow};
use uuid::Uuid;

use crate::database::error::store_error;

const OF_SUBJECT: &str = "select subject, key_id, master, wrapped, forgotten_at from subject_keys where subject = $1";
const BY_ID: &str = "select subject, key_id, master, wrapped, forgotten_at from subject_keys where key_id = $1";
const OTHERWISE: &str = "select subject, key_id, master, wrapped, forgotten_at from subject_keys \
     where wrapped is not null and (master < $1 or master > $1) limit $2";
const INSERT: &str = "insert into subject_keys (subject, key_id, master, wrapped) values ($1, $2, $3, $4) \
     on conflict (subject) do nothing";
const FORGET: &str = "insert into subject_keys (subject, forgotten_at) values ($1, $2) on conflict (subject) do update \
     set wrapped = null, master = null, forgotten_at = $2 where subject_keys.wrapped is not null";
const REWRAP: &str = "update subject_keys set master = $3, wrapped = $4 where subject = $1 and wrapped = $2";

/// Keys in the table `subject_keys` of a schema. In a system of several services one of them owns it; give the others
/// its pool, or a database role that sees this table only.
#[derive(Clone)]
pub struct PgKeyStore {
    pool: PgPool,
}

impl PgKeyStore {
    /// Keys in the schema that `pool`'s connections have first in their search path.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    async fn find(&self, query: &'static str, id: Uuid) -> Result<Option<SubjectKey>, KeyStoreError> {
        let row = sqlx::query(query).bind(id).fetch_optional(&self.pool).await.map_err(failed)?;
        row.map(|row| read(&row)).transpose().map_err(failed)
    }
}

fn failed(error: sqlx::Error) -> KeyStoreError {
    KeyStoreError::Store(store_error(&error))
}

fn read(row: &PgRow) -> Result<SubjectKey, sqlx::Error> {
    if let Some(at) = row.try_get::<Option<i64>, _>(4)? {
        return Ok(SubjectKey::Forgotten { at: Timestamp::from_millis(at) });
    }
    let master: i32 = row.try_get(2)?;
    Ok(SubjectKey::Present(WrappedKey {
        subject: row.try_get(0)?,
        id: row.try_get(1)?,
        master: master.cast_unsigned(),
        wrapped: row.try_get(3)?,
    }))
}

#[async_trait]
impl KeyStore for PgKeyStore {
    async fn of_subject(&self, subject: Uuid) -> Result<Option<SubjectKey>, KeyStoreError> {
        self.find(OF_SUBJECT, subject).await
    }

    async fn by_id(&self, key: Uuid) -> Result<Option<SubjectKey>, KeyStoreError> {
        self.find(BY_ID, key).await
    }

    async fn insert(&self, key: &WrappedKey) -> Result<SubjectKey, KeyStoreError> {
        let query = sqlx::query(INSERT).bind(key.subject).bind(key.id).bind(key.master.cast_signed());
        query.bind(&key.wrapped).execute(&self.pool).await.map_err(failed)?;
        // Rows are never deleted, so there is one now.
        self.of_subject(key.subject).await?.ok_or_else(|| failed(sqlx::Error::RowNotFound))
    }

    async fn forget(&self, subject: Uuid, at: Timestamp) -> Result<(), KeyStoreError> {
        sqlx::query(FORGET).bind(subject).bind(at.as_millis()).execute(&self.pool).await.map_err(failed)?;
        Ok(())
    }

    async fn wrapped_otherwise(&self, master: u32, limit: u32) -> Result<Vec<WrappedKey>, KeyStoreError> {
        let query = sqlx::query(OTHERWISE).bind(master.cast_signed()).bind(i64::from(limit));
        let rows = query.fetch_all(&self.pool).await.map_err(failed)?;
        let mut keys = Vec::with_capacity(rows.len());
        for row in &rows {
            if let SubjectKey::Present(key) = read(row).map_err(failed)? {
                keys.push(key);
            }
        }
        Ok(keys)
    }

    async fn rewrap(&self, old: &WrappedKey, new: &WrappedKey) -> Result<bool, KeyStoreError> {
        let query = sqlx::query(REWRAP).bind(old.subject).bind(&old.wrapped).bind(new.master.cast_signed());
        Ok(query.bind(&new.wrapped).execute(&self.pool).await.map_err(failed)?.rows_affected() == 1)
    }
}

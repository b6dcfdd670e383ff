//! Keys of data subjects in the database.
//!
//! Two processes may insert the first key of a subject at once, while a third forgets the subject. There is one row per
//! subject, which is never deleted. The first insert wins, and a forgotten subject never gets a key again.

use async_trait::async_trait;
use epoch::{
    Timestamp,
    personal::{KeyStore, KeyStoreError, SubjectKey, WrappedKey},
};
use sqlx::{FromRow, PgPool};
use uuid::Uuid;

use crate::database::error::store_error;

const OF_SUBJECT: &str = "select subject, key_id, master, wrapped, forgotten_at from subject_keys where subject = $1";
const BY_ID: &str = "select subject, key_id, master, wrapped, forgotten_at from subject_keys where key_id = $1";
const REWRAP: &str = "update subject_keys set master = $3, wrapped = $4 where subject = $1 and wrapped = $2";

/// Stores keys in the table `subject_keys` of a schema.
///
/// In a system of several services, one of them owns the table. Give the others its pool, or a database role that has
/// access to this table only.
#[derive(Clone)]
pub struct PgKeyStore {
    pool: PgPool,
}

/// A row without a wrapped key belongs to a forgotten subject.
#[derive(FromRow)]
struct SubjectKeyRow {
    subject: Uuid,
    key_id: Option<Uuid>,
    master: Option<i32>,
    wrapped: Option<Vec<u8>>,
    forgotten_at: Option<i64>,
}

impl SubjectKeyRow {
    fn subject_key(self) -> Result<SubjectKey, KeyStoreError> {
        if let Some(at) = self.forgotten_at {
            return Ok(SubjectKey::Forgotten { at: Timestamp::from_millis(at) });
        }
        // The table's checks exclude other combinations.
        let (Some(id), Some(master), Some(wrapped)) = (self.key_id, self.master, self.wrapped) else {
            return Err(failed(sqlx::Error::RowNotFound));
        };
        Ok(SubjectKey::Present(WrappedKey { subject: self.subject, id, master: master.cast_unsigned(), wrapped }))
    }
}

impl PgKeyStore {
    /// Creates the key store of the schema that is first in the search path of `pool`.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    async fn find(&self, query: &'static str, id: Uuid) -> Result<Option<SubjectKey>, KeyStoreError> {
        let row: Option<SubjectKeyRow> =
            sqlx::query_as(query).bind(id).fetch_optional(&self.pool).await.map_err(failed)?;
        row.map(SubjectKeyRow::subject_key).transpose()
    }
}

fn failed(error: sqlx::Error) -> KeyStoreError {
    KeyStoreError::Store(store_error(&error))
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
        let query = sqlx::query(include_str!("subject_keys/sql/insert.sql")).bind(key.subject).bind(key.id);
        let query = query.bind(key.master.cast_signed()).bind(&key.wrapped);
        query.execute(&self.pool).await.map_err(failed)?;
        // Rows are never deleted, so the row exists now.
        self.of_subject(key.subject).await?.ok_or_else(|| failed(sqlx::Error::RowNotFound))
    }

    async fn forget(&self, subject: Uuid, at: Timestamp) -> Result<(), KeyStoreError> {
        let query = sqlx::query(include_str!("subject_keys/sql/forget.sql")).bind(subject).bind(at.as_millis());
        query.execute(&self.pool).await.map_err(failed)?;
        Ok(())
    }

    async fn keys_to_rewrap(&self, master: u32, limit: u32) -> Result<Vec<WrappedKey>, KeyStoreError> {
        let query = sqlx::query_as(include_str!("subject_keys/sql/wrapped_by_other_master.sql"));
        let query = query.bind(master.cast_signed()).bind(i64::from(limit));
        let rows: Vec<SubjectKeyRow> = query.fetch_all(&self.pool).await.map_err(failed)?;
        let mut keys = Vec::with_capacity(rows.len());
        for row in rows {
            if let SubjectKey::Present(key) = row.subject_key()? {
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

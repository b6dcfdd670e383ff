//! Consistent reads: one state of the read models for one query, by one statement or one transaction.

use std::{
    collections::BTreeMap,
    ops::{Deref, DerefMut},
};

use rating::{
    calendar::span::Span,
    metering::compute::JobRun,
    sharing::{rule::SharingRules, shares::Shares},
};
use sqlx::{PgConnection, PgPool, Postgres, Transaction, pool::PoolConnection};
use uuid::Uuid;

use crate::{
    page::Page,
    queries::{
        evaluation::{ListPages, RollupSelection, USAGE_BY_SPAN},
        late_records::LateRecords,
        read_spans::ReadSpans,
        usage_query::{MAX_CELLS, MAX_CHANGES, MAX_SHARED_FILES, UsageBySpan, UsageQuery},
        usage_statement::UsageRows,
    },
    read_error::{ReadError, check_limit},
    rollup::{scope::Scope, span_sums::RollupSums},
    sharing::{
        Users, share_files,
        shared_files::{self, JobOwners, SharedFiles, SharedFilesQuery},
    },
};

/// A consistent state of the read models, for a query of several statements.
pub struct Snapshot {
    pub(super) connection: SnapshotConnection,
    pub(super) query: UsageQuery,
    pub(super) rules: SharingRules,
    pub(super) late: LateRecords,
}

/// A connection that reads one consistent state.
pub(super) enum SnapshotConnection {
    /// A transaction keeps the state over any number of statements.
    Transaction(Transaction<'static, Postgres>),
    /// The caller sends a single statement.
    Statement(PoolConnection<Postgres>),
}

impl Deref for SnapshotConnection {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        match self {
            Self::Transaction(tx) => tx,
            Self::Statement(connection) => connection,
        }
    }
}

impl DerefMut for SnapshotConnection {
    fn deref_mut(&mut self) -> &mut PgConnection {
        match self {
            Self::Transaction(tx) => tx,
            Self::Statement(connection) => connection,
        }
    }
}

/// Locks precede the first read, so that the transaction sees a swap as a whole or waits for it.
pub(crate) const BEGIN_SNAPSHOT: &str = "begin isolation level repeatable read read only; \
     lock table storage_changes, metering_files, metering_file_sums, metering_storage_sums, job_moments, runs, metered_jobs, machine_types, \
         metering_run_sums, file_link_changes in access share mode";

impl Snapshot {
    /// Opens a snapshot of the current read models.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn of(pool: &PgPool, query: UsageQuery) -> Result<Self, ReadError> {
        let mut tx = epoch_postgres::begin(pool, BEGIN_SNAPSHOT).await?;
        let late = match query.known_at {
            Some(known_at) => LateRecords::of(&mut tx, query, known_at).await?,
            None => LateRecords::default(),
        };
        Ok(Self { connection: SnapshotConnection::Transaction(tx), query, rules: SharingRules::default(), late })
    }

    /// Prepares a query of one statement, which needs no transaction.
    pub(super) async fn for_one_statement(pool: &PgPool, query: UsageQuery) -> Result<Self, ReadError> {
        let connection = SnapshotConnection::Statement(pool.acquire().await?);
        Ok(Self { connection, query, rules: SharingRules::default(), late: LateRecords::default() })
    }

    /// Sets the rules by which jobs share files; the default splits them always.
    #[must_use]
    pub fn with_sharing_rules(self, rules: impl Into<SharingRules>) -> Self {
        Self { rules: rules.into(), ..self }
    }

    /// Returns the counted part of the period.
    #[must_use]
    pub fn counted(&self) -> Span {
        self.query.window.counted()
    }

    pub(super) async fn read(
        &mut self,
        selection: RollupSelection<'_>,
        read_spans: &ReadSpans,
        pages: ListPages,
    ) -> Result<UsageRows, ReadError> {
        self.query.read(&mut self.connection, &self.late, selection, read_spans, pages).await
    }

    /// Returns usage in `spans`, which partition the counted part of the period.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn totals(&mut self, spans: &[Span]) -> Result<UsageBySpan, ReadError> {
        let read_spans = ReadSpans::of(self.query.window, spans);
        let rows = self.read(USAGE_BY_SPAN, &read_spans, ListPages::default()).await?;
        Ok(self.query.usage_by_span(&rows, &read_spans, spans))
    }

    /// Returns the shares of jobs in files in each of `spans`, the rollups of `scopes`, and the creators of
    /// the jobs if requested. It covers files that were ever linked, to any job or to `jobs`. A page lists
    /// jobs, too.
    pub(super) async fn shares(
        &mut self,
        (jobs, page): (Option<&[Uuid]>, Option<Page>),
        (read_spans, spans): (&ReadSpans, &[Span]),
        scopes: &[Scope],
        owners: bool,
    ) -> Result<SharedUsage, ReadError> {
        let UsageQuery { organization, window, known_at } = self.query;
        let files = SharedFilesQuery {
            organization,
            period: window.read_range(),
            known_at,
            late_files: &self.late.files,
            jobs,
            max_files: MAX_SHARED_FILES,
            max_changes: MAX_CHANGES,
            many_links: shared_files::MANY_LINKS,
            owners: owners || self.rules.need_users(),
            page,
            scopes,
            from: read_spans.from,
            spans: &read_spans.spans,
            max_sums: MAX_CELLS,
        };
        let SharedFiles { links, changes, owners, mut sums, runs, linked_jobs } =
            shared_files::read(&mut self.connection, &files).await?;
        self.late.subtract_from(&mut sums, scopes, read_spans);
        let of_files = links.values().fold(0_usize, |sum, links| sum.saturating_add(links.len() + 1));
        check_limit(of_files.saturating_mul(spans.len()), MAX_CELLS, "shares of files")?;
        let known = owners.iter().filter_map(|(job, owner)| Some((*job, owner.user?)));
        let users = if self.rules.need_users() { known.collect() } else { Users::new() };
        Ok(SharedUsage {
            files: share_files(links, changes, spans, &self.rules, &users),
            owners,
            sums,
            runs,
            linked_jobs,
        })
    }
}

/// Shares of jobs in files, with the rollups and lists of the same statement.
pub(super) struct SharedUsage {
    pub(super) files: BTreeMap<Uuid, Shares<Uuid>>,
    pub(super) owners: JobOwners,
    pub(super) sums: RollupSums,
    pub(super) runs: Vec<JobRun<Uuid, Uuid>>,
    pub(super) linked_jobs: Vec<Uuid>,
}

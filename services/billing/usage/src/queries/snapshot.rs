//! Consistent reads: one moment for one question, in one statement or one transaction.

use std::{
    collections::BTreeMap,
    ops::{Deref, DerefMut},
};

use rating::{
    calendar::span::Span,
    metering::compute::JobRun,
    sharing::{rule::Rules, shares::Shares},
};
use sqlx::{PgConnection, PgPool, Postgres, Transaction, pool::PoolConnection};
use uuid::Uuid;

use crate::{
    page::Page,
    queries::{
        question::{Asked, MAX_CHANGES, MAX_PARTS, MAX_SHARED_FILES, Totals},
        reading::{Cut, Late, Pages, Sought, TOTALS},
        usage_statement::Found,
    },
    read_error::{ReadError, bounded},
    rollup::sums::{Read, Scope},
    sharing::{
        Users, shared,
        shared_files::{self, Owners},
    },
};

/// The read models as they were at one moment, for one question that takes several statements.
pub struct Snapshot {
    pub(super) connection: AtOneMoment,
    pub(super) asked: Asked,
    /// How jobs share files.
    pub(super) rules: Rules,
    pub(super) late: Late,
}

/// A connection on which all is read at one moment.
pub(super) enum AtOneMoment {
    /// By a transaction, however many statements follow.
    Transaction(Transaction<'static, Postgres>),
    /// By sending one statement only.
    Statement(PoolConnection<Postgres>),
}

impl Deref for AtOneMoment {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        match self {
            Self::Transaction(tx) => tx,
            Self::Statement(connection) => connection,
        }
    }
}

impl DerefMut for AtOneMoment {
    fn deref_mut(&mut self) -> &mut PgConnection {
        match self {
            Self::Transaction(tx) => tx,
            Self::Statement(connection) => connection,
        }
    }
}

/// Locks come before what is seen, so that a swap either is seen whole or waits.
pub(crate) const AT_ONE_MOMENT: &str = "begin isolation level repeatable read read only; \
     lock table storage_changes, metering_files, metering_file_sums, metering_storage_sums, job_moments, runs, metered_jobs, machine_types, \
         metering_run_sums, file_link_changes in access share mode";

impl Snapshot {
    /// Looks at the read models as they are now.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn of(pool: &PgPool, asked: Asked) -> Result<Self, ReadError> {
        let mut tx = epoch_postgres::begin(pool, AT_ONE_MOMENT).await?;
        let late = match asked.known_at {
            Some(known_at) => Late::of(&mut tx, asked, known_at).await?,
            None => Late::default(),
        };
        Ok(Self { connection: AtOneMoment::Transaction(tx), asked, rules: Rules::default(), late })
    }

    /// For a question that takes one statement, and so no transaction around it.
    pub(super) async fn of_one_statement(pool: &PgPool, asked: Asked) -> Result<Self, ReadError> {
        let connection = AtOneMoment::Statement(pool.acquire().await?);
        Ok(Self { connection, asked, rules: Rules::default(), late: Late::default() })
    }

    /// The same, with files shared by jobs by these rules and not always split.
    #[must_use]
    pub fn sharing_by(self, rules: impl Into<Rules>) -> Self {
        Self { rules: rules.into(), ..self }
    }

    /// What of the period counts.
    #[must_use]
    pub fn counted(&self) -> Span {
        self.asked.window.counted()
    }

    pub(super) async fn read(&mut self, sought: Sought<'_>, cut: &Cut, pages: Pages) -> Result<Found, ReadError> {
        self.asked.read(&mut self.connection, &self.late, sought, cut, pages).await
    }

    /// Usage in `spans`, which partition what of the period counts.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn totals(&mut self, spans: &[Span]) -> Result<Totals, ReadError> {
        let cut = Cut::of(self.asked.window, spans);
        let found = self.read(TOTALS, &cut, Pages::default()).await?;
        Ok(self.asked.totals(&found, &cut, spans))
    }

    /// How jobs share files in each of `spans`, the sums of some scopes, and if it matters whose the jobs are; only of files that were ever linked,
    /// by all jobs or by these. A page lists jobs, too.
    pub(super) async fn shares(
        &mut self,
        (jobs, page): (Option<&[Uuid]>, Option<Page>),
        (cut, spans): (&Cut, &[Span]),
        scopes: &[Scope],
        owners: bool,
    ) -> Result<Shared, ReadError> {
        let Asked { organization, window, known_at } = self.asked;
        let wanted = shared_files::Wanted {
            organization,
            period: window.needed(),
            known_at,
            unclear: &self.late.files,
            jobs,
            max_files: MAX_SHARED_FILES,
            max_changes: MAX_CHANGES,
            many_links: shared_files::MANY_LINKS,
            owners: owners || self.rules.ask_whose(),
            page,
            scopes,
            from: cut.from,
            spans: &cut.spans,
            max_sums: MAX_PARTS,
        };
        let shared_files::Found { links, changes, owners, mut sums, runs, linked } =
            shared_files::read(&mut self.connection, &wanted).await?;
        self.late.forget(&mut sums, scopes, cut);
        let of_files = links.values().fold(0_usize, |sum, links| sum.saturating_add(links.len() + 1));
        bounded(of_files.saturating_mul(spans.len()), MAX_PARTS, "parts of shared files")?;
        let known = owners.iter().filter_map(|(job, owner)| Some((*job, owner.user?)));
        let users = if self.rules.ask_whose() { known.collect() } else { Users::new() };
        Ok(Shared { files: shared(links, changes, spans, &self.rules, &users), owners, sums, runs, linked })
    }
}

/// How jobs share files.
pub(super) struct Shared {
    pub(super) files: BTreeMap<Uuid, Shares<Uuid>>,
    pub(super) owners: Owners,
    pub(super) sums: Read,
    pub(super) runs: Vec<JobRun<Uuid, Uuid>>,
    pub(super) linked: Vec<Uuid>,
}

//! Answers about usage, from the read models.
//!
//! The problem: an answer is put together from several tables while events go on arriving, late ones too; and what was known at an
//! earlier time must still be told later.
//!
//! The invariant: everything in an answer is read at one moment, and if nothing is left out, in one statement ([`answer`]). Totals
//! come from sums, so they cost days and not events, and nothing that is odd keeps them from being told. For an earlier `known_at`, what
//! was recorded since is taken out of them again, which costs what was recorded since. Listed files of which something was not known yet are
//! computed from all their changes; of jobs of which something was not known yet, what was known is paired anew.
//!
//! Whose a job is, where the rule of sharing asks, is what its creation says. It is the first event of the job and nothing changes it
//! later, so whatever else happens or becomes known, the same question has the same users; only a creation that wasn't heard of yet
//! leaves a job with nobody known until it is.
//!
//! A projection may be rebuilt meanwhile. One statement sees its tables before the swap or after it; a transaction of several holds
//! them from its beginning, or it would see a table that came later without the rows that are younger than itself.

pub mod charged;
pub mod groups;
pub mod origins;
mod reading;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::{Deref, DerefMut},
};

use epoch::Timestamp;
use rating::{
    calendar::span::{Span, Window},
    metering::{
        anomaly::{Flag, Flagged},
        compute::{JobRun, JobUsage, compute_usage},
        level::LevelChange,
        storage::FileUsage,
    },
    sharing::{
        file_change::{Change, FileChange},
        rule::Rules,
        shares::{Shares, shares},
    },
};
use sqlx::{PgConnection, PgPool, Postgres, Transaction, pool::PoolConnection};
use uuid::Uuid;

use self::{
    groups::MAX_SHARED_FILES,
    reading::{Cut, Late, Pages, Sought, TOTALS},
};
use crate::projections::{
    ReadError,
    answer::{Found, Page},
    bounded,
    file_links::Links,
    shared_files::{self, Owners},
    storage_changes::Changes,
    sums::{Read, Scope},
};

/// The most changes of single files, links and runs that one answer reads.
pub const MAX_CHANGES: i64 = 200_000;
/// The most flags of files, and of jobs, in one answer; those after them are left out, and the answer says so.
pub const MAX_FLAGS: usize = 10_000;
/// The most sums that one answer is put together from: subjects, or files and the jobs that share each, times parts of the period.
/// They take up to 160 MB, and some two seconds.
pub const MAX_PARTS: i64 = 5_000_000;

/// Whose usage, of when, and as far as it was known when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// The organization.
    pub organization: Uuid,
    /// The period, and as of when.
    pub window: Window,
    /// What was recorded later is not known yet; everything is known if it isn't said.
    pub known_at: Option<Timestamp>,
}

/// Usage in spans that follow each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Totals {
    /// Stored byte-milliseconds, by span.
    pub byte_ms: Vec<i128>,
    /// Run milliseconds, by span.
    pub run_ms: Vec<i128>,
    /// Run milliseconds of all spans together by user, where there are any; nobody comes first.
    pub users: Vec<(Option<Uuid>, i128)>,
    /// Whether something is still stored that counts only up to `as_of`.
    pub storage_provisional: bool,
    /// Whether something still runs that counts only up to `as_of`.
    pub compute_provisional: bool,
}

/// A part of a list, and after which id it goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part<T> {
    /// By id.
    pub items: Vec<T>,
    /// After which id there are more.
    pub next: Option<Uuid>,
}

/// What an organization used in a period, and what is odd about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// By span.
    pub totals: Totals,
    /// The jobs that ran.
    pub jobs: Part<JobUsage<Uuid, Uuid>>,
    /// The files that were stored, and how jobs share each.
    pub files: Part<FileUsage<Uuid, Uuid>>,
    /// What is odd about files, up to [`MAX_FLAGS`].
    pub odd_files: Vec<Flagged<Uuid>>,
    /// Whether there are more.
    pub more_odd_files: bool,
    /// What is odd about jobs, up to [`MAX_FLAGS`].
    pub odd_jobs: Vec<Flagged<Uuid>>,
    /// Whether there may be more.
    pub more_odd_jobs: bool,
}

/// Usage in `spans`, which partition what of the period counts, and pages of the jobs and files that have part in it; files are
/// shared by the rules.
///
/// # Errors
/// [`ReadError`].
pub async fn usage(
    pool: &PgPool,
    asked: Asked,
    rules: impl Into<Rules>,
    spans: &[Span],
    jobs: Page,
    files: Page,
) -> Result<Usage, ReadError> {
    let rules = rules.into();
    let pages = Pages { jobs: one_more(jobs), files: one_more(files), flags: MAX_FLAGS + 1 };
    let cut = Cut::of(asked.window, spans);
    let (found, late, users) = match asked.known_at {
        // One statement is one moment, without a transaction around it.
        None => {
            let late = Late::default();
            let mut connection = pool.acquire().await?;
            let found = asked.read(&mut connection, &late, TOTALS, &cut, pages).await?;
            let users = users_of(&mut connection, asked.organization, &rules, &found.links).await?;
            (found, late, users)
        }
        Some(_) => {
            let mut snapshot = Snapshot::of(pool, asked).await?;
            let found = snapshot.read(TOTALS, &cut, pages).await?;
            let users = users_of(&mut snapshot.connection, asked.organization, &rules, &found.links).await?;
            (found, snapshot.late, users)
        }
    };
    let below_nothing = |id: &Uuid| Flagged { id: *id, flag: Flag::NegativeLevel };
    let (odd_files, more_odd_files) = first_flags(found.below_nothing.iter().map(below_nothing).collect(), false);
    let odd_jobs = compute_usage(&late.odd_runs(&found), asked.window, &[]).flags;
    // Not all runs that are read are odd in this period, so that there may be none among those that are left out.
    let (odd_jobs, more_odd_jobs) = first_flags(odd_jobs, found.odd.len() > MAX_FLAGS);
    let totals = asked.totals(&found, &cut, spans);
    let Part { items, next } = asked.runs_of_page(&found.runs, &late, jobs);
    let jobs = Part { items: compute_usage(&items, asked.window, &[]).jobs, next };
    let Part { items, next } = asked.file_sums(&found, &late, files.limit);
    let mut shared = shared(found.links, found.changes, &[asked.window.counted()], &rules, &users);
    let mut files = Vec::with_capacity(items.len());
    for (file, byte_ms) in items {
        let (unattributed_byte_ms, jobs) = match shared.remove(&file).map(Shares::together) {
            // Of what was before the first link, only the sums know all.
            Some((_, jobs)) => (byte_ms - jobs.iter().map(|(_, share)| share).sum::<i128>(), jobs),
            None => (byte_ms, Vec::new()),
        };
        files.push(FileUsage { file, byte_ms, unattributed_byte_ms, jobs });
    }
    let files = Part { items: files, next };
    Ok(Usage { totals, jobs, files, odd_files, more_odd_files, odd_jobs, more_odd_jobs })
}

/// As many flags as an answer has, and whether there are more.
fn first_flags(mut flags: Vec<Flagged<Uuid>>, cut: bool) -> (Vec<Flagged<Uuid>>, bool) {
    let more = cut || flags.len() > MAX_FLAGS;
    flags.truncate(MAX_FLAGS);
    (flags, more)
}

/// Which users created jobs; nothing of jobs of nobody known.
type Users = BTreeMap<Uuid, Uuid>;

/// Who created the jobs that use files, where a rule asks whose they are.
async fn users_of(
    connection: &mut PgConnection,
    organization: Uuid,
    rules: &Rules,
    links: &Links,
) -> Result<Users, ReadError> {
    if !rules.ask_whose() {
        return Ok(Users::new());
    }
    let mut jobs = BTreeSet::new();
    for change in links.values().flatten() {
        if let Change::Link(job) = change.change {
            jobs.insert(job);
        }
    }
    let jobs: Vec<_> = jobs.into_iter().collect();
    let known = sqlx::query_as(
        "select job_id, user_id from metered_jobs \
         where organization_id = $1 and job_id = any($2) and user_id is not null",
    );
    let users: Vec<(Uuid, Uuid)> = known.bind(organization).bind(jobs).fetch_all(connection).await?;
    Ok(users.into_iter().collect())
}

/// How jobs share files in each of `spans`; only of files that were ever linked.
fn shared(
    links: Links,
    mut levels: Changes,
    spans: &[Span],
    rules: &Rules,
    users: &Users,
) -> BTreeMap<Uuid, Shares<Uuid>> {
    let mut shared = BTreeMap::new();
    for (file, mut changes) in links {
        for LevelChange { at, delta } in levels.remove(&file).unwrap_or_default() {
            changes.push(FileChange { at, change: Change::Level(delta) });
        }
        // Those of one instant stay in the order of their events.
        changes.sort_by_key(|change| change.at);
        // A job of nobody known is of a user of its own.
        shared.insert(file, shares(&changes, spans, rules, |job| users.get(job).copied().ok_or(*job)));
    }
    shared
}

/// The read models as they were at one moment, for one question that takes several statements.
pub struct Snapshot {
    connection: AtOneMoment,
    asked: Asked,
    /// How jobs share files.
    rules: Rules,
    late: Late,
}

/// A connection on which all is read at one moment.
enum AtOneMoment {
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
    async fn of_one_statement(pool: &PgPool, asked: Asked) -> Result<Self, ReadError> {
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

    async fn read(&mut self, sought: Sought<'_>, cut: &Cut, pages: Pages) -> Result<Found, ReadError> {
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
    async fn shares(
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
struct Shared {
    files: BTreeMap<Uuid, Shares<Uuid>>,
    owners: Owners,
    sums: Read,
    runs: Vec<JobRun<Uuid, Uuid>>,
    linked: Vec<Uuid>,
}

fn one_more(page: Page) -> Page {
    Page { limit: page.limit.saturating_add(1), ..page }
}

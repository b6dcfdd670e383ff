//! Usage by somebody or something, in rows.
//!
//! The invariant: in each span, the rows of all keys sum to the organization's usage of the meters that are told: storage by file,
//! run time by machine and by its type, both by the others. What is nobody's, or attributed to no job, has no key.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    mem,
};

use rating::{
    calendar::span::Span,
    metering::level::areas,
    sharing::{rule::Rules, shares::Shares},
};
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    page::Page,
    queries::{
        file_sums,
        question::{Asked, MAX_CHANGES, Part, one_more},
        reading::{Cut, Pages, Sought},
        snapshot::{Shared, Snapshot},
    },
    read_error::ReadError,
    read_models::file_links,
    rollup::sums::{Read, Scope},
    sharing::shared_files::Owner,
};

/// By what usage is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupBy {
    /// Storage, by file.
    File,
    /// Both, by job.
    Job,
    /// Both, by user: storage by the user who created the job that a share of it belongs to.
    User,
    /// Both, by the configuration of the job.
    JobConfiguration,
    /// Run time, by machine.
    Machine,
    /// Run time, by the type of the machine.
    MachineType,
}

/// A key's usage in each span.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Usage {
    /// Byte-milliseconds by span; empty where storage is not told.
    pub byte_ms: Vec<i128>,
    /// Run milliseconds by span; empty where run time is not told.
    pub run_ms: Vec<i128>,
}

/// Usage by key.
pub type Groups = Part<(Option<Uuid>, Usage)>;

/// The key, by what is known of a job.
type KnownAs = fn(&Owner) -> Option<Uuid>;

type ByKey = BTreeMap<Option<Uuid>, Vec<i128>>;

impl GroupBy {
    /// The name in queries, answers and columns.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Job => "job",
            Self::User => "user",
            Self::JobConfiguration => "job_configuration",
            Self::Machine => "machine",
            Self::MachineType => "machine_type",
        }
    }

    /// Whether one statement has all of a page, if all is known.
    const fn is_one_statement(self, page: Page) -> bool {
        match self {
            Self::File => false,
            Self::Job => page.after.is_none(),
            _ => true,
        }
    }
}

/// Usage by key, as [`Snapshot::groups`] tells it; of a question that is no more than that.
///
/// # Errors
/// [`ReadError`], also when it takes more shared files than are read at once.
pub async fn groups(
    pool: &PgPool,
    asked: Asked,
    rules: impl Into<Rules>,
    by: GroupBy,
    spans: &[Span],
    page: Page,
) -> Result<Groups, ReadError> {
    let snapshot = match asked.known_at {
        None if by.is_one_statement(page) => Snapshot::of_one_statement(pool, asked).await?,
        _ => Snapshot::of(pool, asked).await?,
    };
    snapshot.sharing_by(rules).groups(by, spans, page.after, page.limit).await
}

impl Snapshot {
    /// Usage by key in each of `spans`, which partition what of the period counts; of up to `limit` keys after `after`. What has
    /// no key comes first.
    ///
    /// # Errors
    /// [`ReadError`], also when it takes more shared files than are read at once.
    pub async fn groups(
        &mut self,
        by: GroupBy,
        spans: &[Span],
        after: Option<Uuid>,
        limit: usize,
    ) -> Result<Groups, ReadError> {
        match by {
            GroupBy::File => self.by_file(spans, after, limit).await,
            GroupBy::Job => self.by_job(spans, after, limit).await,
            GroupBy::User => {
                let known_as: KnownAs = |owner| owner.user;
                self.by_subject(Scope::RunningByUser, Some(known_as), spans, after, limit).await
            }
            GroupBy::JobConfiguration => {
                let known_as: KnownAs = |owner| owner.configuration;
                self.by_subject(Scope::RunningByConfiguration, Some(known_as), spans, after, limit).await
            }
            GroupBy::Machine => self.by_subject(Scope::RunningByMachine, None, spans, after, limit).await,
            GroupBy::MachineType => self.by_subject(Scope::RunningByMachineType, None, spans, after, limit).await,
        }
    }

    async fn by_file(&mut self, spans: &[Span], after: Option<Uuid>, limit: usize) -> Result<Groups, ReadError> {
        let files = one_more(Page { after, limit });
        let found = self.read(Sought::default(), &self.cut(spans), Pages { files, ..Pages::default() }).await?;
        let Part { items, next } = self.asked.file_sums(&found, &self.late, limit);
        let files: Vec<_> = items.into_iter().map(|(file, _)| file).collect();
        let (organization, known_at) = (self.asked.organization, self.asked.known_at);
        let (_, last) = self.asked.window.needed();
        let cut = self.cut(spans);
        let wanted = file_sums::Wanted {
            organization,
            files: &files,
            last,
            known_at,
            from: cut.from,
            spans: &cut.spans,
            max_changes: MAX_CHANGES,
        };
        let file_sums::Found { mut changes, mut sums } = file_sums::read(&mut self.connection, &wanted).await?;
        let mut groups = Vec::with_capacity(files.len());
        for file in files {
            let late = self.late.of_files.get(&file).map_or(&[][..], Vec::as_slice);
            let sums = sums.take(Scope::Storage, file, late, cut.from, &cut.spans);
            let byte_ms = match (changes.remove(&file), sums) {
                (Some(changes), _) => areas(&changes, spans.iter().copied()),
                (None, Some(sums)) => cut.areas(&sums, spans),
                (None, None) => continue,
            };
            groups.push((Some(file), Usage { byte_ms, run_ms: Vec::new() }));
        }
        Ok(Part { items: groups, next })
    }

    async fn by_job(&mut self, spans: &[Span], after: Option<Uuid>, limit: usize) -> Result<Groups, ReadError> {
        let organization = self.asked.organization;
        let (_, last) = self.asked.window.needed();
        let (cut, page) = (self.cut(spans), one_more(Page { after, limit }));
        // The first page also has what no job uses, which takes all jobs' files; so all of it is read at once.
        let mut all = match after {
            None => Some(self.shares((None, Some(page)), (&cut, spans), &[Scope::Storage], false).await?),
            Some(_) => None,
        };
        let (read, linked) = match &mut all {
            Some(all) => (mem::take(&mut all.runs), mem::take(&mut all.linked)),
            None => {
                let pages = Pages { jobs: page, ..Pages::default() };
                let found = self.read(Sought::default(), &Cut::of(self.asked.window, &[]), pages).await?;
                let rows = i64::try_from(page.limit).unwrap_or(i64::MAX);
                (found.runs, file_links::jobs(&mut self.connection, organization, last, after, rows).await?)
            }
        };
        let Part { items: runs, next: runs_next } = self.asked.runs_of_page(&read, &self.late, Page { after, limit });
        let mut jobs: BTreeSet<Uuid> = linked.into_iter().chain(runs.iter().map(|run| run.job)).collect();
        // Of runs, all are known only up to the end of their page.
        let end_of_jobs = jobs.iter().nth(limit.saturating_sub(1)).filter(|_| jobs.len() > limit).copied();
        let next = end_of_jobs.into_iter().chain(runs_next).min();
        if let Some(next) = next {
            jobs.retain(|job| *job <= next);
        }
        let Shared { files, sums, .. } = match all {
            Some(all) => all,
            None => {
                let of_page: Vec<_> = jobs.iter().copied().collect();
                self.shares((Some(&of_page), None), (&cut, spans), &[], false).await?
            }
        };
        let (mut shares, attributed) = by_key(files, spans, |job| job);
        let mut groups = Vec::new();
        if after.is_none() {
            let byte_ms = unattributed(&sums, &cut, &attributed, spans);
            groups.push((None, Usage { byte_ms, run_ms: vec![0; spans.len()] }));
        }
        let mut run_ms: BTreeMap<Uuid, Vec<i128>> = BTreeMap::new();
        for run in runs.iter().filter(|run| jobs.contains(&run.job)) {
            let of_job = run_ms.entry(run.job).or_insert_with(|| vec![0; spans.len()]);
            for (sum, span) in of_job.iter_mut().zip(spans) {
                *sum += run.run.millis_within(*span, self.asked.window.as_of);
            }
        }
        for job in jobs {
            let none = || vec![0; spans.len()];
            let byte_ms = shares.remove(&job).unwrap_or_else(none);
            groups.push((Some(job), Usage { byte_ms, run_ms: run_ms.remove(&job).unwrap_or_else(none) }));
        }
        groups.retain(|(_, usage)| usage.is_some());
        Ok(Part { items: groups, next })
    }

    fn cut(&self, spans: &[Span]) -> Cut {
        Cut::of(self.asked.window, spans)
    }

    /// What the machine types among keys are called.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn machine_types(
        &mut self,
        groups: &[(Option<Uuid>, Usage)],
    ) -> Result<BTreeMap<Uuid, String>, ReadError> {
        let ids: Vec<Uuid> = groups.iter().filter_map(|(key, _)| *key).collect();
        let named = sqlx::query_as("select id, name from machine_types where id = any($1)");
        let names: Vec<(Uuid, String)> = named.bind(ids).fetch_all(&mut *self.connection).await?;
        Ok(names.into_iter().collect())
    }

    /// Run time by what `scope` says, and storage by the same of what is known of jobs, if that is kept.
    async fn by_subject(
        &mut self,
        scope: Scope,
        known_as: Option<KnownAs>,
        spans: &[Span],
        after: Option<Uuid>,
        limit: usize,
    ) -> Result<Groups, ReadError> {
        let cut = self.cut(spans);
        let (sums, mut storage) = match known_as {
            Some(known_as) => {
                let Shared { files, owners, sums, .. } =
                    self.shares((None, None), (&cut, spans), &[Scope::Storage, scope], true).await?;
                let (mut storage, attributed) = by_key(files, spans, |job| owners.get(&job).and_then(known_as));
                add_to(&mut storage, None, unattributed(&sums, &cut, &attributed, spans));
                (sums, storage)
            }
            None => {
                let sought = Sought { scopes: &[scope], ..Sought::default() };
                (self.read(sought, &cut, Pages::default()).await?.sums, ByKey::new())
            }
        };
        let mut run_ms: ByKey = sums.of(scope).map(|(subject, sums)| (subject, cut.areas(sums, spans))).collect();
        let told = !storage.is_empty();
        let keys: BTreeSet<Option<Uuid>> = storage.keys().chain(run_ms.keys()).copied().collect();
        let (mut items, mut last, mut more, mut keyed) = (Vec::new(), None, false, 0);
        for key in keys.into_iter().filter(|key| after.is_none() || *key > after) {
            let none = || vec![0; spans.len()];
            let byte_ms = if told { storage.remove(&key).unwrap_or_else(none) } else { Vec::new() };
            let usage = Usage { byte_ms, run_ms: run_ms.remove(&key).unwrap_or_else(none) };
            if !usage.is_some() {
                continue;
            }
            if keyed == limit {
                more = true;
                break;
            }
            keyed += usize::from(key.is_some());
            last = key;
            items.push((key, usage));
        }
        Ok(Part { items, next: last.filter(|_| more) })
    }
}

/// Storage by the keys of the jobs that share files, and that of all of them together.
fn by_key<K: Ord>(
    files: BTreeMap<Uuid, Shares<Uuid>>,
    spans: &[Span],
    key: impl Fn(Uuid) -> K,
) -> (BTreeMap<K, Vec<i128>>, Vec<i128>) {
    let (mut by_key, mut attributed) = (BTreeMap::new(), vec![0; spans.len()]);
    for (job, byte_ms) in files.into_values().flat_map(|shares| shares.jobs) {
        add(&mut attributed, &byte_ms);
        add_to(&mut by_key, key(job), byte_ms);
    }
    (by_key, attributed)
}

fn add_to<K: Ord>(sums: &mut BTreeMap<K, Vec<i128>>, key: K, more: Vec<i128>) {
    match sums.entry(key) {
        Entry::Occupied(mut of_key) => add(of_key.get_mut(), &more),
        Entry::Vacant(of_key) => drop(of_key.insert(more)),
    }
}

fn add(sums: &mut [i128], more: &[i128]) {
    for (sum, more) in sums.iter_mut().zip(more) {
        *sum += more;
    }
}

/// Storage that is no job's: the organization's without what is some job's.
fn unattributed(sums: &Read, cut: &Cut, attributed: &[i128], spans: &[Span]) -> Vec<i128> {
    let total = cut.areas(&sums.only(Scope::Storage, cut.spans.len()), spans);
    total.iter().zip(attributed).map(|(total, attributed)| total - attributed).collect()
}

impl Usage {
    fn is_some(&self) -> bool {
        self.byte_ms.iter().chain(&self.run_ms).any(|sum| *sum != 0)
    }
}

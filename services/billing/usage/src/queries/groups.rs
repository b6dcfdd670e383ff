//! Usage grouped by file, job, user, configuration, machine or machine type.
//!
//! Invariant: in each span, the rows of all keys sum to the usage of the organization in the reported meters.
//! Files report storage, machines and machine types report run time, and the other keys report both. Usage
//! without a user, and storage without a job, has no key.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    mem,
};

use rating::{
    calendar::span::Span,
    metering::level::areas,
    sharing::{rule::SharingRules, shares::Shares},
};
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    page::Page,
    queries::{
        evaluation::{ListPages, RollupSelection},
        file_levels::{self, FileLevelQuery, FileLevels},
        read_spans::ReadSpans,
        snapshot::{SharedUsage, Snapshot},
        usage_query::{MAX_CHANGES, UsagePage, UsageQuery, one_more},
    },
    read_error::ReadError,
    read_models::file_links,
    rollup::{scope::Scope, span_sums::RollupSums},
    sharing::shared_files::JobOwner,
    usage_row::limit_argument,
};

/// The grouping key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupBy {
    File,
    Job,
    /// Both meters by user; storage by the creator of the job with the share.
    User,
    /// Both meters by the configuration of the job.
    JobConfiguration,
    Machine,
    /// Run time by type of the machine.
    MachineType,
}

/// The usage of a key in each span.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupUsage {
    /// Byte-milliseconds by span; empty where storage is not reported.
    pub byte_ms: Vec<i128>,
    /// Run milliseconds by span; empty where run time is not reported.
    pub run_ms: Vec<i128>,
}

/// A page of usage by key.
pub type Groups = UsagePage<(Option<Uuid>, GroupUsage)>;

/// Derives the key from the creation of a job.
type OwnerKey = fn(&JobOwner) -> Option<Uuid>;

type ByKey = BTreeMap<Option<Uuid>, Vec<i128>>;

impl GroupBy {
    /// Returns the name in query parameters and in JSON.
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

    /// Returns whether one statement reads the whole page if everything is known.
    const fn fits_one_statement(self, page: Page) -> bool {
        match self {
            Self::File => false,
            Self::Job => page.after.is_none(),
            _ => true,
        }
    }
}

/// Groups usage as [`Snapshot::groups`] does, for a request that needs nothing else.
///
/// # Errors
/// [`ReadError`], also when the request needs more shared files than one query reads.
pub async fn groups(
    pool: &PgPool,
    query: UsageQuery,
    rules: impl Into<SharingRules>,
    by: GroupBy,
    spans: &[Span],
    page: Page,
) -> Result<Groups, ReadError> {
    let snapshot = match query.known_at {
        None if by.fits_one_statement(page) => Snapshot::for_one_statement(pool, query).await?,
        _ => Snapshot::of(pool, query).await?,
    };
    snapshot.with_sharing_rules(rules).groups(by, spans, page.after, page.limit).await
}

impl Snapshot {
    /// Groups usage in each of `spans`, which partition the counted part of the period. Returns up to `limit`
    /// keys after `after`; usage without a key comes first.
    ///
    /// # Errors
    /// [`ReadError`], also when the request needs more shared files than one query reads.
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
                let owner_key: OwnerKey = |owner| owner.user;
                self.by_subject(Scope::RunningByUser, Some(owner_key), spans, after, limit).await
            }
            GroupBy::JobConfiguration => {
                let owner_key: OwnerKey = |owner| owner.configuration;
                self.by_subject(Scope::RunningByConfiguration, Some(owner_key), spans, after, limit).await
            }
            GroupBy::Machine => self.by_subject(Scope::RunningByMachine, None, spans, after, limit).await,
            GroupBy::MachineType => self.by_subject(Scope::RunningByMachineType, None, spans, after, limit).await,
        }
    }

    async fn by_file(&mut self, spans: &[Span], after: Option<Uuid>, limit: usize) -> Result<Groups, ReadError> {
        let files = one_more(Page { after, limit });
        let rows = self
            .read(RollupSelection::default(), &self.read_spans(spans), ListPages { files, ..ListPages::default() })
            .await?;
        let UsagePage { items, next } = self.query.file_areas(&rows, &self.late, limit);
        let files: Vec<_> = items.into_iter().map(|(file, _)| file).collect();
        let (organization, known_at) = (self.query.organization, self.query.known_at);
        let (_, last) = self.query.window.read_range();
        let read_spans = self.read_spans(spans);
        let level_query = FileLevelQuery {
            organization,
            files: &files,
            last,
            known_at,
            from: read_spans.from,
            spans: &read_spans.spans,
            max_changes: MAX_CHANGES,
        };
        let FileLevels { mut changes, mut sums } = file_levels::read(&mut self.connection, &level_query).await?;
        let mut groups = Vec::with_capacity(files.len());
        for file in files {
            let late = self.late.changes_by_file.get(&file).map_or(&[][..], Vec::as_slice);
            let sums = sums.take(Scope::Storage, file, late, read_spans.from, &read_spans.spans);
            let byte_ms = match (changes.remove(&file), sums) {
                (Some(changes), _) => areas(&changes, spans.iter().copied()),
                (None, Some(sums)) => read_spans.areas(&sums, spans),
                (None, None) => continue,
            };
            groups.push((Some(file), GroupUsage { byte_ms, run_ms: Vec::new() }));
        }
        Ok(UsagePage { items: groups, next })
    }

    async fn by_job(&mut self, spans: &[Span], after: Option<Uuid>, limit: usize) -> Result<Groups, ReadError> {
        let organization = self.query.organization;
        let (_, last) = self.query.window.read_range();
        let (read_spans, page) = (self.read_spans(spans), one_more(Page { after, limit }));
        // The first page includes unattributed storage, which needs the files of all jobs, so one statement
        // reads everything.
        let mut all = match after {
            None => Some(self.shares((None, Some(page)), (&read_spans, spans), &[Scope::Storage], false).await?),
            Some(_) => None,
        };
        let (read, linked) = match &mut all {
            Some(all) => (mem::take(&mut all.runs), mem::take(&mut all.linked_jobs)),
            None => {
                let pages = ListPages { jobs: page, ..ListPages::default() };
                let rows = self.read(RollupSelection::default(), &ReadSpans::of(self.query.window, &[]), pages).await?;
                let limit = limit_argument(page.limit);
                (rows.runs, file_links::jobs(&mut self.connection, organization, last, after, limit).await?)
            }
        };
        let UsagePage { items: runs, next: runs_next } =
            self.query.runs_of_page(&read, &self.late, Page { after, limit });
        let mut jobs: BTreeSet<Uuid> = linked.into_iter().chain(runs.iter().map(|run| run.job)).collect();
        // Runs are complete only up to the end of their page.
        let end_of_jobs = jobs.iter().nth(limit.saturating_sub(1)).filter(|_| jobs.len() > limit).copied();
        let next = end_of_jobs.into_iter().chain(runs_next).min();
        if let Some(next) = next {
            jobs.retain(|job| *job <= next);
        }
        let SharedUsage { files, sums, .. } = match all {
            Some(all) => all,
            None => {
                let of_page: Vec<_> = jobs.iter().copied().collect();
                self.shares((Some(&of_page), None), (&read_spans, spans), &[], false).await?
            }
        };
        let (mut shares, attributed) = by_key(files, spans, |job| job);
        let mut groups = Vec::new();
        if after.is_none() {
            let byte_ms = unattributed(&sums, &read_spans, &attributed, spans);
            groups.push((None, GroupUsage { byte_ms, run_ms: vec![0; spans.len()] }));
        }
        let mut run_ms: BTreeMap<Uuid, Vec<i128>> = BTreeMap::new();
        for run in runs.iter().filter(|run| jobs.contains(&run.job)) {
            let of_job = run_ms.entry(run.job).or_insert_with(|| vec![0; spans.len()]);
            for (sum, span) in of_job.iter_mut().zip(spans) {
                *sum += run.run.millis_within(*span, self.query.window.as_of);
            }
        }
        for job in jobs {
            let none = || vec![0; spans.len()];
            let byte_ms = shares.remove(&job).unwrap_or_else(none);
            groups.push((Some(job), GroupUsage { byte_ms, run_ms: run_ms.remove(&job).unwrap_or_else(none) }));
        }
        groups.retain(|(_, usage)| usage.is_some());
        Ok(UsagePage { items: groups, next })
    }

    fn read_spans(&self, spans: &[Span]) -> ReadSpans {
        ReadSpans::of(self.query.window, spans)
    }

    /// Returns the names of the machine types among the keys.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn machine_types(
        &mut self,
        groups: &[(Option<Uuid>, GroupUsage)],
    ) -> Result<BTreeMap<Uuid, String>, ReadError> {
        let ids: Vec<Uuid> = groups.iter().filter_map(|(key, _)| *key).collect();
        let named = sqlx::query_as("select id, name from machine_types where id = any($1)");
        let names: Vec<(Uuid, String)> = named.bind(ids).fetch_all(&mut *self.connection).await?;
        Ok(names.into_iter().collect())
    }

    /// Groups run time by the subject of `scope`, and storage by the same property of the creations of jobs,
    /// if they have it.
    async fn by_subject(
        &mut self,
        scope: Scope,
        owner_key: Option<OwnerKey>,
        spans: &[Span],
        after: Option<Uuid>,
        limit: usize,
    ) -> Result<Groups, ReadError> {
        let read_spans = self.read_spans(spans);
        let (sums, mut storage) = match owner_key {
            Some(owner_key) => {
                let SharedUsage { files, owners, sums, .. } =
                    self.shares((None, None), (&read_spans, spans), &[Scope::Storage, scope], true).await?;
                let (mut storage, attributed) = by_key(files, spans, |job| owners.get(&job).and_then(owner_key));
                add_to(&mut storage, None, unattributed(&sums, &read_spans, &attributed, spans));
                (sums, storage)
            }
            None => {
                let selection = RollupSelection { scopes: &[scope], ..RollupSelection::default() };
                (self.read(selection, &read_spans, ListPages::default()).await?.sums, ByKey::new())
            }
        };
        let mut run_ms: ByKey =
            sums.of(scope).map(|(subject, sums)| (subject, read_spans.areas(sums, spans))).collect();
        let reports_storage = !storage.is_empty();
        let keys: BTreeSet<Option<Uuid>> = storage.keys().chain(run_ms.keys()).copied().collect();
        let (mut items, mut last, mut more, mut keyed) = (Vec::new(), None, false, 0);
        for key in keys.into_iter().filter(|key| after.is_none() || *key > after) {
            let none = || vec![0; spans.len()];
            let byte_ms = if reports_storage { storage.remove(&key).unwrap_or_else(none) } else { Vec::new() };
            let usage = GroupUsage { byte_ms, run_ms: run_ms.remove(&key).unwrap_or_else(none) };
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
        Ok(UsagePage { items, next: last.filter(|_| more) })
    }
}

/// Sums up the shares of jobs by key, and over all keys.
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

/// Returns unattributed storage: the total of the organization minus the shares of all jobs.
fn unattributed(sums: &RollupSums, read_spans: &ReadSpans, attributed: &[i128], spans: &[Span]) -> Vec<i128> {
    let total = read_spans.areas(&sums.of_organization(Scope::Storage, read_spans.spans.len()), spans);
    total.iter().zip(attributed).map(|(total, attributed)| total - attributed).collect()
}

impl GroupUsage {
    fn is_some(&self) -> bool {
        self.byte_ms.iter().chain(&self.run_ms).any(|sum| *sum != 0)
    }
}

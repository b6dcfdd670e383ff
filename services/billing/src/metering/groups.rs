//! Usage by somebody or something, in rows.
//!
//! The invariant: in each span, the rows of all keys sum to the organization's usage of the meters that are told: storage by file,
//! run time by machine and by its type, both by the others. What is nobody's, or attributed to no job, has no key.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use sqlx::Row as _;
use uuid::Uuid;

use super::{Cut, MAX_CHANGES, Pages, Part, Snapshot, Sought, one_more};
use crate::{
    domain::{metering::areas, span::Span},
    projections::{
        ReadError,
        answer::{Found, Page},
        file_links, storage_changes,
        sums::Scope,
    },
};

/// The most files that jobs share which one answer reads.
pub const MAX_SHARED_FILES: usize = 20_000;

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

type ByKey = BTreeMap<Option<Uuid>, Vec<i128>>;

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
            GroupBy::User => self.by_subject(Scope::RunningByUser, Some("user_id"), spans, after, limit).await,
            GroupBy::JobConfiguration => {
                let known_as = Some("configuration_id");
                self.by_subject(Scope::RunningByConfiguration, known_as, spans, after, limit).await
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
        let changes =
            storage_changes::of_files(&mut self.tx, organization, &files, last, known_at, MAX_CHANGES).await?;
        let mut groups = Vec::with_capacity(files.len());
        for (file, changes) in changes {
            let byte_ms = areas(&changes, spans.iter().copied());
            groups.push((Some(file), Usage { byte_ms, run_ms: Vec::new() }));
        }
        Ok(Part { items: groups, next })
    }

    async fn by_job(&mut self, spans: &[Span], after: Option<Uuid>, limit: usize) -> Result<Groups, ReadError> {
        let organization = self.asked.organization;
        let (_, last) = self.asked.window.needed();
        // The first page also has what no job uses.
        let scopes: &[Scope] = if after.is_none() { &[Scope::Storage] } else { &[] };
        let cut = self.cut(spans);
        let page = one_more(Page { after, limit });
        let found = self.read(Sought { scopes, whole: &[] }, &cut, Pages { jobs: page, ..Pages::default() }).await?;
        let Part { items: runs, next: runs_next } = self.asked.runs_of_page(&found, &self.late, Page { after, limit });
        let rows = i64::try_from(page.limit).unwrap_or(i64::MAX);
        let linked = file_links::jobs(&mut self.tx, organization, last, after, rows).await?;
        let mut jobs: BTreeSet<Uuid> = linked.into_iter().chain(runs.iter().map(|run| run.job)).collect();
        // Of runs, all are known only up to the end of their page.
        let end_of_jobs = jobs.iter().nth(limit.saturating_sub(1)).filter(|_| jobs.len() > limit).copied();
        let next = end_of_jobs.into_iter().chain(runs_next).min();
        if let Some(next) = next {
            jobs.retain(|job| *job <= next);
        }
        // What no job uses takes all jobs' files.
        let asked_for: Vec<_> = jobs.iter().copied().collect();
        let of_jobs = after.is_some().then_some(&asked_for[..]);
        let (mut shares, attributed) = self.shares_of_jobs(of_jobs, spans).await?;
        let mut groups = Vec::new();
        if after.is_none() {
            let byte_ms = unattributed(&found, &cut, &attributed, spans);
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

    /// Storage by job, and that of all these jobs together; of all jobs, or of these and those they share files with.
    async fn shares_of_jobs(
        &mut self,
        jobs: Option<&[Uuid]>,
        spans: &[Span],
    ) -> Result<(BTreeMap<Uuid, Vec<i128>>, Vec<i128>), ReadError> {
        let mut by_job: BTreeMap<Uuid, Vec<i128>> = BTreeMap::new();
        let mut attributed = vec![0; spans.len()];
        for (job, byte_ms) in self.shares(jobs, spans).await?.into_values().flat_map(|shares| shares.jobs) {
            add(&mut attributed, &byte_ms);
            match by_job.entry(job) {
                Entry::Occupied(mut of_job) => add(of_job.get_mut(), &byte_ms),
                Entry::Vacant(of_job) => drop(of_job.insert(byte_ms)),
            }
        }
        Ok((by_job, attributed))
    }

    /// Storage by what is known of the jobs that use it; `found` says how much there is in all.
    async fn shares_by(
        &mut self,
        column: &'static str,
        found: &Found,
        cut: &Cut,
        spans: &[Span],
    ) -> Result<ByKey, ReadError> {
        let (by_job, attributed) = self.shares_of_jobs(None, spans).await?;
        let jobs: Vec<_> = by_job.keys().copied().collect();
        let known = "select job_id, user_id, configuration_id from metered_jobs \
             where organization_id = $1 and job_id = any($2)";
        let mut keys: BTreeMap<Uuid, Option<Uuid>> = BTreeMap::new();
        for row in &sqlx::query(known).bind(self.asked.organization).bind(jobs).fetch_all(&mut *self.tx).await? {
            keys.insert(row.try_get("job_id")?, row.try_get(column)?);
        }
        let mut by_key = ByKey::from([(None, unattributed(found, cut, &attributed, spans))]);
        for (job, byte_ms) in by_job {
            let key = keys.get(&job).copied().flatten();
            add(by_key.entry(key).or_insert_with(|| vec![0; spans.len()]), &byte_ms);
        }
        Ok(by_key)
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
        let names: Vec<(Uuid, String)> = named.bind(ids).fetch_all(&mut *self.tx).await?;
        Ok(names.into_iter().collect())
    }

    /// Run time by what `scope` says, and storage by the same column of what is known of jobs, if there is one.
    async fn by_subject(
        &mut self,
        scope: Scope,
        known_as: Option<&'static str>,
        spans: &[Span],
        after: Option<Uuid>,
        limit: usize,
    ) -> Result<Groups, ReadError> {
        let cut = self.cut(spans);
        let scopes: &[Scope] = if known_as.is_some() { &[Scope::Storage, scope] } else { &[scope] };
        let found = self.read(Sought { scopes, whole: &[] }, &cut, Pages::default()).await?;
        let mut storage = match known_as {
            Some(column) => self.shares_by(column, &found, &cut, spans).await?,
            None => ByKey::new(),
        };
        let mut run_ms: ByKey = found.sums.of(scope).map(|(subject, sums)| (subject, cut.areas(sums, spans))).collect();
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

fn add(sums: &mut [i128], more: &[i128]) {
    for (sum, more) in sums.iter_mut().zip(more) {
        *sum += more;
    }
}

/// Storage that is no job's: the organization's without what is some job's.
fn unattributed(found: &Found, cut: &Cut, attributed: &[i128], spans: &[Span]) -> Vec<i128> {
    let total = cut.areas(&found.sums.only(Scope::Storage, cut.spans.len()), spans);
    total.iter().zip(attributed).map(|(total, attributed)| total - attributed).collect()
}

impl Usage {
    fn is_some(&self) -> bool {
        self.byte_ms.iter().chain(&self.run_ms).any(|sum| *sum != 0)
    }
}

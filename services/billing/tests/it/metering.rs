//! Usage read from the read models equals the results of the pure functions of `rating` for the same events.

use std::{collections::BTreeMap, sync::Arc};

use contracts::{
    file::{self, FileDeleted, FileEvent},
    job::{self, FileRole, JobCreated, JobEvent, JobFilesLinked, JobFilesUnlinked, JobStarted, JobSucceeded},
};
use epoch::{Envelope, Timestamp};
use proptest::{
    collection::{btree_map, vec},
    option,
    prelude::*,
    sample::select,
    strategy::ValueTree,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use rating::{
    calculator,
    calendar::{
        day::{days, zone},
        span::{Span, Window},
    },
    metering::{
        compute::{JobRun, compute_usage},
        level::{LevelChange, area, level_at},
        run::Run,
        storage::storage_usage,
    },
    pricing::meter::Meter,
    sharing::{
        file_change::{Change, FileChange},
        rule::{SharingRule, SharingRules},
        shares::shares,
    },
};
use serde_json::{Value, json};
use usage::{
    page::Page,
    queries::{
        groups::{GroupBy, groups},
        snapshot::Snapshot,
        usage::{UsageReport, usage},
        usage_by_term::{LifetimeUsage, lifetime_usage},
        usage_query::UsageQuery,
    },
};
use uuid::Uuid;

use crate::{
    read_models::ReadModels,
    support::{DAY, HOUR, id, part_uploaded, set_rollup_threshold},
};

/// 2025-10-01T00:00:00Z. Summer time ends in Madrid in that month.
const OCTOBER: i64 = 1_759_276_800_000;

/// The instant at which all jobs are created.
const CREATED: i64 = OCTOBER - 200 * DAY;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// Instants shared by many events and queries. They include noon, and 18:15 UTC, which is midnight in Kathmandu.
const SHARED_INSTANTS: [i64; 7] = [
    OCTOBER,
    OCTOBER + 33 * HOUR / 4,
    OCTOBER + 33 * HOUR / 4 + 1,
    OCTOBER + 12 * HOUR - 1,
    OCTOBER + 12 * HOUR,
    OCTOBER + 73 * HOUR / 4,
    OCTOBER + DAY,
];

/// An instant before, in or after the month, often at the edge of an hour, and often equal to another one.
fn instant() -> impl Strategy<Value = i64> {
    prop_oneof![
        OCTOBER - 100 * DAY..OCTOBER + 40 * DAY,
        OCTOBER - DAY..OCTOBER + 5 * DAY,
        (-30..120_i64).prop_map(|quarters| OCTOBER + quarters * HOUR / 4),
        select(SHARED_INSTANTS.to_vec()),
    ]
}

/// Milliseconds between occurrence and recording. Negative ones occur, because clocks differ.
fn delay() -> impl Strategy<Value = i64> {
    prop_oneof![3 => -100..5_000_i64, 1 => 0..20 * DAY, 2 => Just(0)]
}

#[derive(Debug, Clone)]
struct PlannedChange {
    when: i64,
    delay: i64,
    delta: i64,
}

#[derive(Debug, Clone)]
struct FilePlan {
    changes: Vec<PlannedChange>,
}

#[derive(Debug, Clone)]
struct PlannedLink {
    when: i64,
    delay: i64,
    file: usize,
    links: bool,
}

#[derive(Debug, Clone)]
struct JobPlan {
    created: bool,
    user: Option<u128>,
    configuration: u128,
    started: Option<(i64, i64)>,
    ended: Option<(i64, i64)>,
    links: Vec<PlannedLink>,
}

/// Some files are deleted after all their other changes, and are empty from then on.
fn file_plan() -> impl Strategy<Value = FilePlan> {
    let delta = prop_oneof![5 => 1..1_000_000_000_000_i64, 2 => -1_000_000_000_000..0_i64];
    let deleted = option::of((0..40 * DAY, delay()));
    let change = (instant(), delay(), delta).prop_map(|(when, delay, delta)| PlannedChange { when, delay, delta });
    (vec(change, 1..9), deleted).prop_map(|(mut changes, deleted)| {
        let stored: i64 = changes.iter().map(|change| change.delta).sum();
        let last = changes.iter().map(|change| change.when).max().unwrap_or_default();
        if let Some((later, delay)) = deleted.filter(|_| stored != 0) {
            changes.push(PlannedChange { when: last + later, delay, delta: -stored });
        }
        FilePlan { changes }
    })
}

fn job_plan() -> impl Strategy<Value = JobPlan> {
    let link = (instant(), delay(), 0..6_usize, prop::bool::weighted(0.7));
    let link = link.prop_map(|(when, delay, file, links)| PlannedLink { when, delay, file, links });
    let links = vec(link, 0..5);
    let moment = || option::weighted(0.85, (instant(), delay()));
    let created = prop::bool::weighted(0.9);
    let parts = (created, option::weighted(0.8, 0..3_u128), 0..3_u128, moment(), moment(), links);
    parts.prop_map(|(created, user, configuration, started, ended, links)| JobPlan {
        created,
        user,
        configuration,
        started,
        ended,
        links,
    })
}

#[derive(Debug, Clone)]
struct Question {
    start: i64,
    length: i64,
    as_of: i64,
    known_at: Option<i64>,
    zone: &'static str,
    /// Sharing rules by the instant from which they apply.
    rules: BTreeMap<i64, SharingRule>,
}

impl Question {
    fn rules(&self) -> SharingRules {
        self.rules.iter().map(|(from, rule)| (at(*from), *rule)).collect()
    }
}

fn question() -> impl Strategy<Value = Question> {
    // In the last two zones days begin at noon UTC.
    let zones = select(vec![
        "UTC",
        "Europe/Madrid",
        "Asia/Kathmandu",
        "Australia/Lord_Howe",
        "America/St_Johns",
        "Pacific/Kiritimati",
        "Etc/GMT+12",
        "Etc/GMT-12",
    ]);
    let as_of = prop_oneof![instant(), OCTOBER + 40 * DAY..OCTOBER + 50 * DAY];
    let rules = btree_map(
        instant(),
        select(vec![SharingRule::Split, SharingRule::UnsharedOnly, SharingRule::UnsharedOnly]),
        0..4,
    );
    (instant(), 0..40 * DAY, as_of, option::of(instant()), zones, rules).prop_map(
        |(start, length, as_of, known_at, zone, rules)| Question { start, length, as_of, known_at, zone, rules },
    )
}

struct RecordedRun {
    start_recorded_at: Option<i64>,
    end_recorded_at: Option<i64>,
    run: JobRun<Uuid, Uuid>,
}

/// All events as input of the pure functions, with recording times.
#[derive(Default)]
struct Reference {
    levels: BTreeMap<Uuid, Vec<(i64, LevelChange)>>,
    runs: Vec<RecordedRun>,
    links: BTreeMap<Uuid, Vec<(i64, FileChange<Uuid>)>>,
    /// Creator and configuration of each job. Both are `None` for a job without a creation event.
    jobs: BTreeMap<Uuid, (Option<Uuid>, Option<Uuid>)>,
}

fn file_events(
    read_models: &mut ReadModels,
    reference: &mut Reference,
    file: Uuid,
    plan: &FilePlan,
) -> Vec<Arc<Envelope>> {
    let organization_id = read_models.organization;
    let (mut events, mut recorded_at) = (Vec::new(), i64::MIN);
    for PlannedChange { when, delay, delta } in &plan.changes {
        recorded_at = recorded_at.max(when + delay);
        let event: FileEvent = if *delta > 0 {
            part_uploaded(organization_id, 0, *delta).into()
        } else {
            FileDeleted { organization_id, bytes: -*delta }.into()
        };
        events.push(read_models.event(file::AGGREGATE, file, *when, recorded_at, &event));
        reference.levels.entry(file).or_default().push((recorded_at, LevelChange { at: at(*when), delta: *delta }));
    }
    events
}

fn job_events(
    read_models: &mut ReadModels,
    reference: &mut Reference,
    job: Uuid,
    plan: &JobPlan,
) -> Vec<Arc<Envelope>> {
    let organization_id = read_models.organization;
    let user_id = plan.user.map(|user| id(500 + user));
    let job_configuration_id = id(700 + plan.configuration);
    let known = (user_id.filter(|_| plan.created), Some(job_configuration_id).filter(|_| plan.created));
    reference.jobs.insert(job, known);
    let created = JobCreated {
        organization_id,
        job_configuration_id,
        name: "j".into(),
        command: vec!["true".into()],
        timeout_ms: 1,
        user_id,
    };
    let mut events = Vec::new();
    if plan.created {
        events.push(read_models.event(job::AGGREGATE, job, CREATED, CREATED, &JobEvent::from(created)));
    }
    let mut recorded_at = i64::MIN;
    let mut links = plan.links.clone();
    links.sort_by_key(|link| link.when);
    let mut linked = std::collections::BTreeSet::new();
    for PlannedLink { when, delay, file, links } in links {
        recorded_at = recorded_at.max(when + delay);
        let (file_id, role) = (id(file as u128), FileRole::Input);
        let event: JobEvent = match links {
            true => JobFilesLinked { organization_id, file_ids: vec![file_id], role }.into(),
            false => JobFilesUnlinked { organization_id, file_ids: vec![file_id], role }.into(),
        };
        events.push(read_models.event(job::AGGREGATE, job, when, recorded_at, &event));
        let changed = if links { linked.insert(file_id) } else { linked.remove(&file_id) };
        let change = if links { Change::Link(job) } else { Change::Unlink(job) };
        if changed {
            reference.links.entry(file_id).or_default().push((recorded_at, FileChange { at: at(when), change }));
        }
    }
    let mut moment = |planned: Option<(i64, i64)>, event: JobEvent| {
        let (when, delay) = planned?;
        recorded_at = recorded_at.max(when + delay);
        events.push(read_models.event(job::AGGREGATE, job, when, recorded_at, &event));
        Some((when, recorded_at))
    };
    let started = moment(
        plan.started,
        JobStarted { organization_id, machine_id: id(900), user_id, machine_type: "m".into() }.into(),
    );
    let ended = moment(plan.ended, JobSucceeded { organization_id, exit_code: 0 }.into());
    if started.is_some() || ended.is_some() {
        let run = Run { started_at: started.map(|(when, _)| at(when)), ended_at: ended.map(|(when, _)| at(when)) };
        let user = user_id.filter(|_| started.is_some());
        reference.runs.push(RecordedRun {
            start_recorded_at: started.map(|(_, recorded_at)| recorded_at),
            end_recorded_at: ended.map(|(_, recorded_at)| recorded_at),
            run: JobRun { job, user, run },
        });
    }
    events
}

impl Reference {
    fn levels(&self, known_at: Option<i64>) -> BTreeMap<Uuid, Vec<LevelChange>> {
        let known = |recorded_at: i64| known_at.is_none_or(|known_at| recorded_at <= known_at);
        let of = |changes: &Vec<(i64, LevelChange)>| {
            changes.iter().filter(|(recorded_at, _)| known(*recorded_at)).map(|(_, change)| *change).collect()
        };
        self.levels.iter().map(|(file, changes)| (*file, of(changes))).collect()
    }

    fn runs(&self, known_at: Option<i64>) -> Vec<JobRun<Uuid, Uuid>> {
        let known = |recorded_at: &Option<i64>| match (recorded_at, known_at) {
            (Some(recorded_at), Some(known_at)) => *recorded_at <= known_at,
            _ => true,
        };
        let mut runs = Vec::new();
        for RecordedRun { start_recorded_at, end_recorded_at, run } in &self.runs {
            let mut run = run.clone();
            run.run.started_at = run.run.started_at.filter(|_| known(start_recorded_at));
            run.run.ended_at = run.run.ended_at.filter(|_| known(end_recorded_at));
            runs.push(run);
        }
        runs
    }

    /// Computes byte-milliseconds by file and job in one span.
    fn shared(&self, question: &Question, last: Timestamp, span: Span) -> BTreeMap<Uuid, Shared> {
        let mut files = BTreeMap::new();
        for (file, levels) in self.levels(question.known_at) {
            let mut changes: Vec<_> = self.links(file, question.known_at).filter(|link| link.at <= last).collect();
            for LevelChange { at, delta } in levels.into_iter().filter(|change| change.at <= last) {
                changes.push(FileChange { at, change: Change::Level(delta) });
            }
            changes.sort_by_key(|change| change.at);
            let user = |job: &Uuid| self.jobs[job].0.ok_or(*job);
            let (of_file, jobs) = shares(&changes, &[span], &question.rules(), user).total();
            if of_file.stored {
                files.insert(file, (of_file.unattributed_byte_ms, jobs));
            }
        }
        files
    }

    /// Returns the links and unlinks of a file, in the order of time.
    fn links(&self, file: Uuid, known_at: Option<i64>) -> impl Iterator<Item = FileChange<Uuid>> {
        let known = |recorded_at: i64| known_at.is_none_or(|known_at| recorded_at <= known_at);
        let links = self.links.get(&file).into_iter().flatten();
        let mut links: Vec<_> =
            links.filter(|(recorded_at, _)| known(*recorded_at)).map(|(_, link)| link.clone()).collect();
        links.sort_by_key(|link| link.at);
        links.into_iter()
    }

    /// Computes the same shares with the calculator of `billing rate`, for files that are never negative.
    ///
    /// Its documents cannot express a negative file.
    fn rate_shares(&self, question: &Question) -> BTreeMap<Uuid, Shared> {
        let event = |events: &mut Vec<Value>, at: Timestamp, kind: &str, mut event: Value| {
            event["type"] = json!(kind);
            event["id"] = json!(format!("e{}", events.len()));
            event["seq"] = json!(events.len());
            event["occurred_at"] = json!(at.to_string());
            events.push(event);
        };
        let mut events = Vec::new();
        for (job, (user, configuration)) in &self.jobs {
            if configuration.is_some() {
                event(&mut events, at(CREATED), "JobCreated", json!({ "job": job, "user": user }));
            }
        }
        for (file, mut levels) in self.levels(question.known_at) {
            levels.sort_by_key(|change| change.at);
            let mut bytes = 0;
            let mut stored = Vec::new();
            for of_instant in levels.chunk_by(|left, right| left.at == right.at) {
                bytes += of_instant.iter().map(|change| change.delta).sum::<i64>();
                stored.push((of_instant[0].at, bytes));
            }
            if stored.iter().any(|(_, bytes)| *bytes < 0) {
                continue;
            }
            for (at, bytes) in stored {
                event(&mut events, at, "FileStored", json!({ "file": file, "bytes": bytes }));
            }
            for FileChange { at, change } in self.links(file, question.known_at) {
                match change {
                    Change::Link(job) => event(&mut events, at, "FileLinked", json!({ "file": file, "job": job })),
                    Change::Unlink(job) => event(&mut events, at, "FileUnlinked", json!({ "file": file, "job": job })),
                    Change::Level(_) => unreachable!(),
                }
            }
        }
        let plan = |rule: &SharingRule| json!({ "id": rule.as_str(), "version": 1, "currency": "EUR", "charges": [], "split": rule.as_str() });
        let subscribed = |(from, rule): (&i64, &SharingRule)| json!({ "from": at(*from).to_string(), "plan": rule.as_str(), "version": 1 });
        let document = json!({
            "as_of": at(question.as_of).to_string(),
            "period": { "start": at(question.start).to_string(), "end": at(question.start + question.length).to_string() },
            "events": events,
            "plans": [plan(&SharingRule::Split), plan(&SharingRule::UnsharedOnly)],
            "subscription": question.rules.iter().map(subscribed).collect::<Vec<_>>(),
        });
        let answer =
            calculator::calculate(document.to_string().as_bytes()).unwrap_or_else(|refused| panic!("{refused}"));
        let answer = serde_json::to_value(answer).unwrap();
        let id = |value: &Value| value.as_str().unwrap().parse::<Uuid>().unwrap();
        let number = |value: &Value| value.as_str().unwrap().parse::<i128>().unwrap();
        let mut files = BTreeMap::new();
        for file in answer["storage"]["files"].as_array().unwrap() {
            let jobs = file["jobs"].as_array().unwrap().iter().map(|job| (id(&job["job"]), number(&job["byte_ms"])));
            files.insert(id(&file["file"]), (number(&file["unattributed_byte_ms"]), jobs.collect()));
        }
        files
    }

    /// Computes non-zero usage by key and span: storage by file or by job, and run time by job.
    fn rows(&self, question: &Question, by: GroupBy, window: Window, spans: &[Span]) -> Rows {
        let mut rows = Rows::new();
        let mut add = |key: Option<Uuid>, span: usize, byte_ms: i128, run_ms: i128| {
            let row = rows.entry(key).or_insert_with(|| (vec![0; spans.len()], vec![0; spans.len()]));
            (row.0[span], row.1[span]) = (row.0[span] + byte_ms, row.1[span] + run_ms);
        };
        let of_job = |job: Uuid| {
            let (user, configuration) = self.jobs[&job];
            match by {
                GroupBy::Job => Some(job),
                GroupBy::User => user,
                _ => configuration,
            }
        };
        for (index, span) in spans.iter().enumerate() {
            if by == GroupBy::File {
                for (file, changes) in self.levels(question.known_at) {
                    add(Some(file), index, area(&changes, *span), 0);
                }
                continue;
            }
            for run in self.runs(question.known_at) {
                let key = match by {
                    GroupBy::Machine => Some(id(900)),
                    GroupBy::User => run.user,
                    _ => of_job(run.job),
                };
                add(key, index, 0, run.run.millis_within(*span, window.as_of));
            }
            let shared = self.shared(question, window.read_range().1, *span);
            for (unattributed, jobs) in shared.into_values().filter(|_| by != GroupBy::Machine) {
                add(None, index, unattributed, 0);
                for (job, byte_ms) in jobs {
                    add(of_job(job), index, byte_ms, 0);
                }
            }
        }
        rows.retain(|_, (byte_ms, run_ms)| byte_ms.iter().chain(run_ms.iter()).any(|sum| *sum != 0));
        rows
    }
}

/// Unattributed byte-milliseconds of a file, and the byte-milliseconds of its jobs.
type Shared = (i128, Vec<(Uuid, i128)>);

/// Byte-milliseconds and run milliseconds by key, in each span.
type Rows = BTreeMap<Option<Uuid>, (Vec<i128>, Vec<i128>)>;

const GROUPS: [GroupBy; 6] =
    [GroupBy::File, GroupBy::Job, GroupBy::User, GroupBy::JobConfiguration, GroupBy::Machine, GroupBy::MachineType];

async fn listed(
    read_models: &ReadModels,
    (usage_query, rules): (UsageQuery, &SharingRules),
    spans: &[Span],
    jobs: Page,
    files: Page,
) -> UsageReport {
    usage(&read_models.pool, usage_query, rules.clone(), spans, jobs, files).await.unwrap()
}

async fn check(read_models: &ReadModels, reference: &Reference, question: &Question) {
    let period = Span::new(at(question.start), at(question.start + question.length));
    let window = Window { period, as_of: at(question.as_of) };
    let days = days(period, &zone(question.zone).unwrap()).unwrap();
    let usage_query =
        UsageQuery { organization: read_models.organization, window, known_at: question.known_at.map(at) };
    let counted = window.counted();
    let spans: Vec<_> = days.iter().map(|day| day.span.intersect(counted)).collect();
    let rules = question.rules();
    let mut snapshot = Snapshot::of(&read_models.pool, usage_query).await.unwrap().with_sharing_rules(rules.clone());

    let storage = storage_usage(&reference.levels(question.known_at), window, &days);
    let compute = compute_usage(&reference.runs(question.known_at), window, &days);
    let totals = snapshot.totals(&spans).await.unwrap();
    let expected: Vec<_> = storage.days.iter().map(|(_, byte_ms)| *byte_ms).collect();
    assert_eq!(totals.byte_ms, expected, "bytes: {question:?}");
    assert_eq!(totals.byte_ms.iter().sum::<i128>(), storage.byte_ms, "days sum to the period: {question:?}");
    let expected: Vec<_> = compute.days.iter().map(|(_, run_ms)| *run_ms).collect();
    assert_eq!(totals.run_ms, expected, "runs: {question:?}");
    let users: Vec<_> = compute.users.iter().filter(|(_, run_ms)| *run_ms != 0).copied().collect();
    assert_eq!(totals.users, users, "users: {question:?}");
    let provisional = (totals.storage_provisional, totals.compute_provisional);
    assert_eq!(provisional, (storage.provisional, compute.provisional), "{question:?}");

    let (before, start) = (Span::new(at(0), period.start()), period.start());
    let LifetimeUsage { used, stored_bytes } =
        lifetime_usage(&read_models.pool, read_models.organization, start).await.unwrap();
    let levels = reference.levels(None);
    assert_eq!(
        used.get(Meter::Storage),
        levels.values().map(|changes| area(changes, before)).sum::<i128>(),
        "{question:?}"
    );
    assert_eq!(stored_bytes, levels.values().map(|changes| level_at(changes, start)).sum::<i128>(), "{question:?}");
    let run_ms = reference.runs(None).iter().map(|run| run.run.millis_within(before, start)).sum::<i128>();
    assert_eq!(used.get(Meter::Compute), run_ms, "{question:?}");

    let (mut files, mut after) = (Vec::new(), None);
    loop {
        let usage = listed(read_models, (usage_query, &rules), &spans, Page::default(), Page { after, limit: 3 }).await;
        assert_eq!(usage.totals, totals, "totals of the combined statement: {question:?}");
        assert_eq!(
            (&usage.file_anomalies, &usage.job_anomalies),
            (&storage.anomalies, &compute.anomalies),
            "{question:?}"
        );
        assert!(!usage.more_file_anomalies && !usage.more_job_anomalies);
        files.extend(usage.files.items);
        after = usage.files.next;
        if after.is_none() {
            break;
        }
    }
    let found: Vec<_> = files.iter().map(|used| (used.file, used.byte_ms)).collect();
    assert_eq!(found, storage.files, "files: {question:?}");
    let shared = reference.shared(question, window.read_range().1, counted);
    let rate_shares = reference.rate_shares(question);
    for used in &files {
        let expected = (used.unattributed_byte_ms, used.jobs.clone());
        assert_eq!(shared.get(&used.file), Some(&expected), "shares of {}: {question:?}", used.file);
        if let Some(rated) = rate_shares.get(&used.file) {
            assert_eq!(rated, &expected, "shares by `billing rate` of {}: {question:?}", used.file);
        }
        let jobs: i128 = used.jobs.iter().map(|(_, byte_ms)| byte_ms).sum();
        assert_eq!(jobs + used.unattributed_byte_ms, used.byte_ms);
    }

    let (mut jobs, mut after) = (Vec::new(), None);
    loop {
        let usage = listed(read_models, (usage_query, &rules), &spans, Page { after, limit: 2 }, Page::default()).await;
        jobs.extend(usage.jobs.items);
        after = usage.jobs.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(jobs, compute.jobs, "jobs: {question:?}");

    for by in GROUPS {
        let (mut rows, mut after) = (Rows::new(), None);
        loop {
            let page = snapshot.groups(by, &spans, after, 2).await.unwrap();
            let alone = groups(&read_models.pool, usage_query, rules.clone(), by, &spans, Page { after, limit: 2 })
                .await
                .unwrap();
            assert_eq!(alone, page, "groups in a statement of their own: {by:?}: {question:?}");
            for (key, usage) in page.items {
                let or_zeros = |sums: Vec<i128>| if sums.is_empty() { vec![0; spans.len()] } else { sums };
                let row = (or_zeros(usage.byte_ms), or_zeros(usage.run_ms));
                assert_eq!(rows.insert(key, row), None, "{by:?} {key:?} twice: {question:?}");
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        if by != GroupBy::MachineType {
            assert_eq!(rows, reference.rows(question, by, window, &spans), "{by:?}: {question:?}");
        }
        let (mut bytes, mut runs) = (vec![0; spans.len()], vec![0; spans.len()]);
        for (byte_ms, run_ms) in rows.into_values() {
            bytes.iter_mut().zip(byte_ms).for_each(|(sum, part)| *sum += part);
            runs.iter_mut().zip(run_ms).for_each(|(sum, part)| *sum += part);
        }
        if !matches!(by, GroupBy::Machine | GroupBy::MachineType) {
            assert_eq!(bytes, totals.byte_ms, "bytes {by:?}: {question:?}");
        }
        if by != GroupBy::File {
            assert_eq!(runs, totals.run_ms, "runs {by:?}: {question:?}");
        }
    }
}

/// Streams are interleaved at random and cut into batches, and some batches are redelivered.
#[tokio::test]
async fn read_models_match_the_reference_for_any_batches() {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    for threshold in [32, 0, 2, 0, 5, 1] {
        let plans = (vec(file_plan(), 1..6), vec(job_plan(), 4..20), vec(question(), 30), vec(any::<u32>(), 80));
        let (files, jobs, questions, dice) = plans.new_tree(&mut runner).unwrap().current();
        let (mut read_models, mut reference) = (ReadModels::new().await, Reference::default());
        set_rollup_threshold(&read_models.pool, threshold).await;
        let mut streams: Vec<_> = Vec::new();
        for (number, plan) in (0..).zip(&files) {
            streams.push(file_events(&mut read_models, &mut reference, id(number), plan));
        }
        for (number, plan) in (100..).zip(&jobs) {
            streams.push(job_events(&mut read_models, &mut reference, id(number), plan));
        }
        streams.retain(|stream| !stream.is_empty());
        let mut dice = dice.into_iter().cycle();
        let mut next = || dice.next().unwrap() as usize;
        let mut before: Vec<Arc<Envelope>> = Vec::new();
        while !streams.is_empty() {
            let mut batch = Vec::new();
            for _ in 0..=next() % 6 {
                let Some(chosen) = next().checked_rem(streams.len()) else { break };
                batch.push(streams[chosen].remove(0));
                if streams[chosen].is_empty() {
                    streams.remove(chosen);
                }
            }
            read_models.deliver(&batch).await;
            if next() % 3 == 0 {
                read_models.deliver(&before).await;
            }
            before = batch;
        }
        for question in &questions {
            check(&read_models, &reference, question).await;
        }
        read_models.close().await;
    }
}

//! What an answer about a month of an organization costs, among 100,000 and among 10,000,000 events of a year.
//!
//! The problem: an answer that reads what happened costs more the more happens. The invariant: it reads sums; so among 10,000,000 events
//! each kind of question has its 99th percentile under 20 ms and its median under five times that among 100,000. Both databases are asked in turn,
//! so that a machine that is slower for a while is so for both; and what holds is what the middle one of three rounds says. A limit that doesn't
//! hold is told at the end and fails the run.
//!
//! Events are put in by the SQL functions of the projections, a day of all organizations at a time and not batch by batch as they
//! would come, since it is reading that is measured: what an organization has lies as scattered as it would. The tables are
//! unlogged meanwhile. The events are those of `metering.sql`: uploads,
//! deletions, jobs created, linked, started and ended, of 1,000 organizations. Two more, with many files and with files of many parts, are the
//! same among few events and among many.

mod door;

use std::{
    fmt::{self, Display, Formatter},
    str::FromStr,
    time::Instant,
};

use anyhow::{Context, Result};
use epoch::Timestamp;
use epoch_postgres::{connect, migrate};
use rating::{
    calendar::{
        day::{days, zone},
        slot::{Granularity, slots},
        span::{Span, Window},
    },
    sharing::rule::SharingRule,
};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::task::JoinSet;
use usage::{
    page::Page,
    queries::{
        groups::{GroupBy, groups},
        usage_query::UsageQuery,
        usage::usage,
    },
};
use uuid::Uuid;

use self::door::Door;
use crate::report::percentile;

const ORGANIZATIONS: usize = 1_000;
const LOADERS: i32 = 3;
const QUESTIONS: usize = 1_000;
const WARM_UP: usize = 100;
const ROUNDS: usize = 3;
/// Files of a month in the one organization that has many.
const MANY: i32 = 5_000;
const MANY_FILES: Uuid = Uuid::from_u128(0xffff_ffff_0000_7000_8000_0000_0000_0000);
/// Parts of each of the uploads of a month in the one organization whose files have many.
const PARTS: i64 = 5_000;
const UPLOADS: i64 = 100;
const MANY_PARTS: Uuid = Uuid::from_u128(0xffff_ffff_0000_7000_8000_0000_0000_0001);

/// 2025-01-01, and a year.
const YEAR: i64 = 1_735_689_600_000;
const DAY: i64 = 86_400_000;

/// As many files and jobs as an answer about usage lists.
const LISTED: usize = 200;

/// How many events the small database has.
const SMALL: usize = 100_000;

/// How many events the large one has, and what an answer among them may take; by environment.
struct Limits {
    events: usize,
    p99_ms: f64,
    ratio: f64,
}

impl Limits {
    fn read() -> Result<Self> {
        Ok(Self {
            events: setting("BENCH_METERING_EVENTS", 10_000_000)?,
            p99_ms: setting("BENCH_METERING_P99_MS", 20.0)?,
            ratio: setting("BENCH_METERING_RATIO", 5.0)?,
        })
    }

    /// What doesn't hold, in words.
    fn missed(&self, what: &str, many: &Measured, ratio: f64) -> Vec<String> {
        let (p99, mut missed) = (many.p99.middle, Vec::new());
        if p99 >= self.p99_ms {
            missed.push(format!("{what}: p99 is {p99:.2} ms, and must be under {} ms", self.p99_ms));
        }
        if ratio >= self.ratio {
            let most = self.ratio;
            missed.push(format!("{what}: p50 is {ratio:.1} times that among {SMALL} events, and must be under {most}"));
        }
        missed
    }
}

/// A number in the environment, or what holds without it.
fn setting<T: FromStr<Err: Display>>(name: &str, default: T) -> Result<T> {
    let Ok(text) = std::env::var(name) else { return Ok(default) };
    text.parse().map_err(|error| anyhow::anyhow!("{name} is {text:?}: {error}"))
}

/// Measures, prints, and gives the limits that don't hold.
pub async fn run(server: &str) -> Result<Vec<String>> {
    let limits = Limits::read()?;
    let few = Database::open(server, SMALL).await?;
    let many = Database::open(server, limits.events).await?;
    println!(
        "\n## a month of an organization by day, with its files, jobs and users (of {ROUNDS} rounds of {QUESTIONS} questions of each kind, the \
         one in the middle; the worst in brackets)\n"
    );
    let events = limits.events;
    println!(
        "| what | p50, {SMALL} events | p99 | p50, {events} events | p99 | p50, times |\n|---|---|---|---|---|---|"
    );
    let mut missed = Vec::new();
    for (what, kind) in KINDS {
        let [few, many] = measure([&few, &many], kind).await?;
        let ratio = many.p50.middle / few.p50.middle;
        println!("| {what} | {} | {} | {} | {} | {ratio:.1} |", few.p50, few.p99, many.p50, many.p99);
        missed.extend(limits.missed(what, &many, ratio));
    }
    few.close().await?;
    many.close().await?;
    Ok(missed)
}

/// Where questions are asked.
struct Database {
    pool: PgPool,
    organizations: Vec<Uuid>,
    door: Door,
}

impl Database {
    async fn open(server: &str, events: usize) -> Result<Self> {
        let (pool, url) = filled(server, events).await?;
        let organizations: Vec<Uuid> = sqlx::query_scalar(
            "select distinct organization_id from metering_files where organization_id <> all($1) order by 1",
        )
        .bind([MANY_FILES, MANY_PARTS])
        .fetch_all(&pool)
        .await?;
        let door = Door::open(&url, &organizations).await?;
        Ok(Self { pool, organizations, door })
    }

    async fn close(self) -> Result<()> {
        self.door.close().await?;
        self.pool.close().await;
        Ok(())
    }

    /// Asks about every organization and every month, in an order without a pattern.
    async fn ask(&self, kind: Kind, number: usize) -> Result<()> {
        let Self { pool, organizations, door } = self;
        let (organization, month) = (organizations[number * 617 % organizations.len()], number * 5 % 12);
        match kind {
            Kind::Usage => ask_usage(pool, organization, month).await,
            Kind::Rows(by) => ask_rows(pool, organization, month, by).await,
            Kind::UsageOfMany => ask_usage(pool, MANY_FILES, 6).await,
            Kind::UsageOfParts => ask_usage(pool, MANY_PARTS, 6).await,
            Kind::RowsOfParts(by) => ask_rows(pool, MANY_PARTS, 6, by).await,
            Kind::Door => door.usage(organization, self::month(month)?.0).await,
        }
    }
}

/// The database of so many events, and where it is; filled if it isn't there from an earlier run, which takes minutes.
async fn filled(server: &str, events: usize) -> Result<(PgPool, String)> {
    let name = format!("bench_metering_{events}");
    let server = PgConnectOptions::from_str(server)?;
    let url = server.clone().database(&name).to_url_lossy().to_string();
    let pool = || connect(PgPoolOptions::new(), server.clone().database(&name), "billing");
    let mut connection = PgConnection::connect_with(&server).await?;
    let there = "select exists (select 1 from pg_database where datname = $1)";
    if sqlx::query_scalar(there).bind(&name).fetch_one(&mut connection).await? {
        let pool = pool().await?;
        let filled = "select exists (select 1 from pg_tables where tablename = 'bench_filled')";
        if sqlx::query_scalar(filled).fetch_one(&pool).await? {
            migrate(&pool, "billing", &billing::MIGRATIONS).await?;
            return Ok((pool, url));
        }
        pool.close().await;
        sqlx::raw_sql(AssertSqlSafe(format!("drop database {name}"))).execute(&mut connection).await?;
    }
    sqlx::raw_sql(AssertSqlSafe(format!("create database {name}"))).execute(&mut connection).await?;
    let (pool, start) = (pool().await?, Instant::now());
    migrate(&pool, "billing", &billing::MIGRATIONS).await?;
    load(&pool, events).await?;
    // As the server does by itself in the course of a year.
    sqlx::raw_sql("vacuum analyze").execute(&pool).await?;
    sqlx::raw_sql("create table bench_filled ()").execute(&pool).await?;
    eprintln!("{events} events put in within {:.0} s", start.elapsed().as_secs_f64());
    Ok((pool, url))
}

/// Of the rounds, the one in the middle and the worst; in milliseconds.
struct Rounds {
    middle: f64,
    worst: f64,
}

impl Rounds {
    fn of(mut each: [f64; ROUNDS]) -> Self {
        each.sort_by(f64::total_cmp);
        Self { middle: each[ROUNDS / 2], worst: each[ROUNDS - 1] }
    }
}

impl Display for Rounds {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} ({:.2}) ms", self.middle, self.worst)
    }
}

struct Measured {
    p50: Rounds,
    p99: Rounds,
}

/// A kind of question.
#[derive(Clone, Copy)]
enum Kind {
    Usage,
    Rows(GroupBy),
    /// Usage of the one organization that has many files in a month.
    UsageOfMany,
    /// Of the one organization whose files have many parts.
    UsageOfParts,
    /// The same.
    RowsOfParts(GroupBy),
    /// Usage, over HTTP.
    Door,
}

const KINDS: [(&str, Kind); 12] = [
    ("usage: days, files, jobs, users, flags", Kind::Usage),
    ("daily rows by file", Kind::Rows(GroupBy::File)),
    ("daily rows by machine", Kind::Rows(GroupBy::Machine)),
    ("daily rows by machine type", Kind::Rows(GroupBy::MachineType)),
    ("daily rows by job, with shares of files", Kind::Rows(GroupBy::Job)),
    ("daily rows by user, with shares of files", Kind::Rows(GroupBy::User)),
    ("daily rows by configuration, with shares of files", Kind::Rows(GroupBy::JobConfiguration)),
    ("usage of a month with 5,000 files", Kind::UsageOfMany),
    ("usage of a month with 100 uploads of 5,000 parts", Kind::UsageOfParts),
    ("daily rows of these by file", Kind::RowsOfParts(GroupBy::File)),
    ("daily rows of these by job, with shares of files", Kind::RowsOfParts(GroupBy::Job)),
    ("usage through the door, over HTTP", Kind::Door),
];

/// Asks both in turn, so that what else the machine does meets both; the same questions in each round.
async fn measure(databases: [&Database; 2], kind: Kind) -> Result<[Measured; 2]> {
    let mut measured = [[[0.0; ROUNDS]; 2]; 2];
    for round in 0..ROUNDS {
        let mut samples = [Vec::new(), Vec::new()];
        for number in 0..WARM_UP + QUESTIONS {
            for (database, samples) in databases.iter().zip(&mut samples) {
                let began = Instant::now();
                database.ask(kind, number).await?;
                if number >= WARM_UP {
                    samples.push(u64::try_from(began.elapsed().as_micros())?);
                }
            }
        }
        for (measured, samples) in measured.iter_mut().zip(&samples) {
            for (rounds, of) in measured.iter_mut().zip([0.5, 0.99]) {
                rounds[round] = percentile(samples, of);
            }
        }
    }
    Ok(measured.map(|[p50, p99]| Measured { p50: Rounds::of(p50), p99: Rounds::of(p99) }))
}

async fn load(pool: &PgPool, events: usize) -> Result<()> {
    for table in [
        "metering_storage_sums",
        "metering_run_sums",
        "metering_files",
        "metering_file_sums",
        "storage_changes",
        "runs",
        "metered_jobs",
        "file_link_changes",
        "job_moments",
    ] {
        sqlx::raw_sql(AssertSqlSafe(format!("alter table {table} set unlogged"))).execute(pool).await?;
    }
    sqlx::raw_sql(include_str!("metering.sql")).execute(pool).await?;
    let each = i32::try_from(events / ORGANIZATIONS)?;
    let some =
        "insert into bench_organizations select gen_random_uuid(), n % $2, $3, $4, 364 from generate_series(1, $1) n";
    sqlx::query(some).bind(i32::try_from(ORGANIZATIONS)?).bind(LOADERS).bind(each).bind(YEAR).execute(pool).await?;
    let many = sqlx::query("insert into bench_organizations values ($1, 0, $2, $3, 28)").bind(MANY_FILES);
    many.bind(MANY * 20 / 7).bind(YEAR + 181 * DAY).execute(pool).await?;
    sqlx::raw_sql("select bench_prepare(); analyze bench_changes, bench_jobs").execute(pool).await?;
    let mut loaders = JoinSet::new();
    for loader in 0..LOADERS {
        let pool = pool.clone();
        loaders.spawn(async move {
            let days = "select distinct day from bench_changes where loader = $1 order by day";
            let days: Vec<i64> = sqlx::query_scalar(days).bind(loader).fetch_all(&pool).await?;
            for day in days {
                sqlx::query("select bench_day($1, $2)").bind(loader).bind(day).execute(&pool).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(loaded) = loaders.join_next().await {
        loaded.context("loading")??;
    }
    for first in (0..PARTS).step_by(500) {
        let parts = sqlx::query("select bench_parts($1, $2, $3, $4, $5)").bind(MANY_PARTS).bind(UPLOADS);
        parts.bind(YEAR + 181 * DAY).bind(first).bind(first + 500).execute(pool).await?;
    }
    let linked = sqlx::query("select bench_link_parts($1, $2, $3)").bind(MANY_PARTS).bind(UPLOADS);
    linked.bind(YEAR + 181 * DAY).execute(pool).await?;
    sqlx::raw_sql("drop table bench_organizations, bench_changes, bench_jobs").execute(pool).await?;
    Ok(())
}

/// A month in Madrid and its days, as of now.
fn month(number: usize) -> Result<(Window, Vec<Span>)> {
    let zone = zone("Europe/Madrid")?;
    let hour = 3_600_000;
    let year = Span::new(Timestamp::from_millis(YEAR - hour), Timestamp::from_millis(YEAR + 365 * DAY - hour));
    let months = slots(Granularity::Month, year, &zone)?;
    let period = months.get(number).context("a month")?.span;
    let window = Window { period, as_of: Timestamp::from_millis(YEAR + 400 * DAY) };
    Ok((window, days(period, &zone)?.iter().map(|day| day.span).collect()))
}

/// All that the answer to a question about usage reads.
async fn ask_usage(pool: &PgPool, organization: Uuid, number: usize) -> Result<()> {
    let (window, spans) = month(number)?;
    let first = Page { after: None, limit: LISTED };
    let asked = UsageQuery { organization, window, known_at: None };
    let usage = usage(pool, asked, SharingRule::Split, &spans, first, first).await?;
    anyhow::ensure!(usage.totals.byte_ms.len() >= 28, "days");
    Ok(())
}

async fn ask_rows(pool: &PgPool, organization: Uuid, number: usize, by: GroupBy) -> Result<()> {
    let (window, spans) = month(number)?;
    let asked = UsageQuery { organization, window, known_at: None };
    groups(pool, asked, SharingRule::Split, by, &spans, Page { after: None, limit: 50 }).await?;
    Ok(())
}

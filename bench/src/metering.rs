//! Latency of usage queries for one month of an organization, with 100,000 and with 10,000,000 events in a year.
//!
//! Queries read rollups instead of events, so their cost must not grow with the number of events. Limits with 10,000,000 events, per
//! kind of query: 99th percentile below 20 ms, and median below five times that with 100,000 events. Both databases are queried in
//! turns, so that noise affects both, and the median of three rounds counts. A missed limit is printed at the end and fails the run.
//!
//! `metering.sql` generates the events of 1,000 organizations: uploads, deletions, and jobs that are created, linked, started and ended.
//! They are inserted through the projections' SQL functions, one day of all organizations at a time, into unlogged tables. Only reads
//! are measured, and the rows of an organization are as scattered as in production.
//!
//! Two additional organizations, one with many files and one with files of many parts, are the same in both databases.

mod http;

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

use self::http::BillingServer;
use crate::report::percentile;

const ORGANIZATIONS: usize = 1_000;
const LOADERS: i32 = 3;
const QUERIES: usize = 1_000;
const WARM_UP: usize = 100;
const ROUNDS: usize = 3;
/// The number of files in a month of the organization with many files.
const MANY: i32 = 5_000;
const MANY_FILES: Uuid = Uuid::from_u128(0xffff_ffff_0000_7000_8000_0000_0000_0000);
/// The number of parts of each upload in the organization with many parts.
const PARTS: i64 = 5_000;
const UPLOADS: i64 = 100;
const MANY_PARTS: Uuid = Uuid::from_u128(0xffff_ffff_0000_7000_8000_0000_0000_0001);

/// 2025-01-01T00:00:00Z in milliseconds, the start of the measured year.
const YEAR: i64 = 1_735_689_600_000;
const DAY: i64 = 86_400_000;

/// The number of files and jobs in a usage response.
const LISTED: usize = 200;

/// The number of events in the small database.
const SMALL: usize = 100_000;

/// The number of events in the large database, and the limits of its queries. Read from the environment.
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

    /// Describes the missed limits.
    fn missed(&self, query: &str, many: &Measured, ratio: f64) -> Vec<String> {
        let (p99, mut missed) = (many.p99.middle, Vec::new());
        if p99 >= self.p99_ms {
            missed.push(format!("{query}: p99 is {p99:.2} ms, must be below {} ms", self.p99_ms));
        }
        if ratio >= self.ratio {
            let limit = self.ratio;
            missed.push(format!("{query}: p50 is {ratio:.1} times that with {SMALL} events, must be below {limit}"));
        }
        missed
    }
}

/// Reads a number from the environment, or returns the default.
fn setting<T: FromStr<Err: Display>>(name: &str, default: T) -> Result<T> {
    let Ok(text) = std::env::var(name) else { return Ok(default) };
    text.parse().map_err(|error| anyhow::anyhow!("{name} is invalid: {text:?}: {error}"))
}

/// Measures and prints all queries. Returns the missed limits.
pub async fn run(server: &str) -> Result<Vec<String>> {
    let limits = Limits::read()?;
    let few = Database::open(server, SMALL).await?;
    let many = Database::open(server, limits.events).await?;
    println!(
        "\n## usage queries for one month by day ({ROUNDS} rounds of {QUERIES} queries of each kind: median round, worst round in \
         brackets)\n"
    );
    let events = limits.events;
    println!(
        "| query | p50, {SMALL} events | p99 | p50, {events} events | p99 | p50 ratio |\n|---|---|---|---|---|---|"
    );
    let mut missed = Vec::new();
    for (query, kind) in KINDS {
        let [few, many] = measure([&few, &many], kind).await?;
        let ratio = many.p50.middle / few.p50.middle;
        println!("| {query} | {} | {} | {} | {} | {ratio:.1} |", few.p50, few.p99, many.p50, many.p99);
        missed.extend(limits.missed(query, &many, ratio));
    }
    few.close().await?;
    many.close().await?;
    Ok(missed)
}

/// A database with generated events, and the billing service on it.
struct Database {
    pool: PgPool,
    organizations: Vec<Uuid>,
    server: BillingServer,
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
        let server = BillingServer::start(&url, &organizations).await?;
        Ok(Self { pool, organizations, server })
    }

    async fn close(self) -> Result<()> {
        self.server.close().await?;
        self.pool.close().await;
        Ok(())
    }

    /// Runs a query. Numbers spread over all organizations and months without a pattern.
    async fn query(&self, kind: Kind, number: usize) -> Result<()> {
        let Self { pool, organizations, server } = self;
        let (organization, month) = (organizations[number * 617 % organizations.len()], number * 5 % 12);
        match kind {
            Kind::Usage => query_usage(pool, organization, month).await,
            Kind::Rows(by) => query_rows(pool, organization, month, by).await,
            Kind::UsageOfMany => query_usage(pool, MANY_FILES, 6).await,
            Kind::UsageOfParts => query_usage(pool, MANY_PARTS, 6).await,
            Kind::RowsOfParts(by) => query_rows(pool, MANY_PARTS, 6, by).await,
            Kind::Http => server.usage(organization, self::month(month)?.0).await,
        }
    }
}

/// Opens the database with this number of events, and fills it unless an earlier run did. Filling takes minutes.
async fn filled(server: &str, events: usize) -> Result<(PgPool, String)> {
    let name = format!("bench_metering_{events}");
    let server = PgConnectOptions::from_str(server)?;
    let url = server.clone().database(&name).to_url_lossy().to_string();
    let pool = || connect(PgPoolOptions::new(), server.clone().database(&name), "billing");
    let mut connection = PgConnection::connect_with(&server).await?;
    let database_exists = "select exists (select 1 from pg_database where datname = $1)";
    if sqlx::query_scalar(database_exists).bind(&name).fetch_one(&mut connection).await? {
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
    // Autovacuum would do so in the course of a year.
    sqlx::raw_sql("vacuum analyze").execute(&pool).await?;
    sqlx::raw_sql("create table bench_filled ()").execute(&pool).await?;
    eprintln!("{events} events inserted in {:.0} s", start.elapsed().as_secs_f64());
    Ok((pool, url))
}

/// The median and the worst round, in milliseconds.
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

/// A kind of query.
#[derive(Clone, Copy)]
enum Kind {
    Usage,
    Rows(GroupBy),
    /// Usage of the organization with many files.
    UsageOfMany,
    /// Usage of the organization with many parts.
    UsageOfParts,
    /// Rows of the organization with many parts.
    RowsOfParts(GroupBy),
    /// Usage over HTTP.
    Http,
}

const KINDS: [(&str, Kind); 12] = [
    ("usage: days, files, jobs, users, anomalies", Kind::Usage),
    ("daily rows by file", Kind::Rows(GroupBy::File)),
    ("daily rows by machine", Kind::Rows(GroupBy::Machine)),
    ("daily rows by machine type", Kind::Rows(GroupBy::MachineType)),
    ("daily rows by job, with shares of files", Kind::Rows(GroupBy::Job)),
    ("daily rows by user, with shares of files", Kind::Rows(GroupBy::User)),
    ("daily rows by configuration, with shares of files", Kind::Rows(GroupBy::JobConfiguration)),
    ("usage of a month with 5,000 files", Kind::UsageOfMany),
    ("usage of a month with 100 uploads of 5,000 parts", Kind::UsageOfParts),
    ("daily rows of these uploads by file", Kind::RowsOfParts(GroupBy::File)),
    ("daily rows of these uploads by job, with shares of files", Kind::RowsOfParts(GroupBy::Job)),
    ("usage over HTTP", Kind::Http),
];

/// Queries both databases in turns, so that noise affects both. Each round has the same queries.
async fn measure(databases: [&Database; 2], kind: Kind) -> Result<[Measured; 2]> {
    let mut measured = [[[0.0; ROUNDS]; 2]; 2];
    for round in 0..ROUNDS {
        let mut samples = [Vec::new(), Vec::new()];
        for number in 0..WARM_UP + QUERIES {
            for (database, samples) in databases.iter().zip(&mut samples) {
                let start = Instant::now();
                database.query(kind, number).await?;
                if number >= WARM_UP {
                    samples.push(u64::try_from(start.elapsed().as_micros())?);
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

/// Returns a month in the time zone of Madrid and its days, evaluated after the end of the year.
fn month(number: usize) -> Result<(Window, Vec<Span>)> {
    let zone = zone("Europe/Madrid")?;
    let hour = 3_600_000;
    let year = Span::new(Timestamp::from_millis(YEAR - hour), Timestamp::from_millis(YEAR + 365 * DAY - hour));
    let months = slots(Granularity::Month, year, &zone)?;
    let period = months.get(number).context("no such month")?.span;
    let window = Window { period, as_of: Timestamp::from_millis(YEAR + 400 * DAY) };
    Ok((window, days(period, &zone)?.iter().map(|day| day.span).collect()))
}

/// Runs all queries of a usage response.
async fn query_usage(pool: &PgPool, organization: Uuid, number: usize) -> Result<()> {
    let (window, spans) = month(number)?;
    let first = Page { after: None, limit: LISTED };
    let asked = UsageQuery { organization, window, known_at: None };
    let usage = usage(pool, asked, SharingRule::Split, &spans, first, first).await?;
    anyhow::ensure!(usage.totals.byte_ms.len() >= 28, "missing days");
    Ok(())
}

async fn query_rows(pool: &PgPool, organization: Uuid, number: usize, by: GroupBy) -> Result<()> {
    let (window, spans) = month(number)?;
    let asked = UsageQuery { organization, window, known_at: None };
    groups(pool, asked, SharingRule::Split, by, &spans, Page { after: None, limit: 50 }).await?;
    Ok(())
}

//! Rows 1 to 4: commands a second.

use std::sync::Arc;

use anyhow::{Context, Result};
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    contestant::Contestant,
    field::{Entry, Field},
    measure::{Sample, window},
    report::{Side, Table, Verdict, median, number},
    server::Server,
    settings::Settings,
};

/// Commands by which statements are counted, of all clients, and those before that fill pools and caches of statements.
const COUNTED: usize = 320;
const WARM: usize = 64;

fn columns(clients: &[usize]) -> Vec<String> {
    clients.iter().map(|clients| format!("{clients} client{}", if *clients == 1 { "" } else { "s" })).collect()
}

/// Tells which contestant failed.
async fn measured(control: &PgPool, entry: &Entry, clients: usize, settings: &Settings, what: What) -> Result<Sample> {
    let contestant = entry.contestant.clone();
    let operation = move |client, turn| {
        let (contestant, what) = (contestant.clone(), what.clone());
        async move { what.once(&*contestant, client, turn).await }
    };
    let sample = window(control, clients, settings.window, operation).await;
    sample.with_context(|| format!("{} with {clients} clients", entry.contestant.name()))
}

/// What a client does again and again.
#[derive(Clone)]
enum What {
    Create,
    /// Each client goes round a share of the aggregates of its own.
    Append {
        ids: Arc<Vec<Uuid>>,
        clients: usize,
        depth: usize,
        offset: usize,
    },
    Hot {
        id: Uuid,
    },
    Many,
}

impl What {
    async fn once(&self, contestant: &dyn Contestant, client: usize, turn: usize) -> Result<()> {
        match self {
            Self::Create => contestant.create(Uuid::now_v7()).await,
            Self::Append { ids, clients, depth, offset } => {
                let share = (ids.len() / clients).max(1);
                let id = ids[(client * share + (offset + turn) % share) % ids.len()];
                contestant.append(id, 1, *depth).await
            }
            Self::Hot { id } => contestant.append(*id, 1, 0).await,
            Self::Many => contestant.append(Uuid::now_v7(), 100, 0).await,
        }
    }
}

/// Statements and round trips a command, for each number of clients.
async fn count_statements(entry: &Entry, clients: &[usize], what: impl Fn(usize) -> What) -> Result<String> {
    let (contestant, wire) = entry.on_the_wire().await?;
    let mut counts = Vec::new();
    for &clients in clients {
        let what = what(clients);
        for part in [WARM, COUNTED] {
            let before = wire.counted();
            let mut tasks = tokio::task::JoinSet::new();
            for client in 0..clients {
                let (contestant, what) = (contestant.clone(), what.clone());
                tasks.spawn(async move {
                    for turn in 0..part.div_ceil(clients) {
                        what.once(&*contestant, client, turn).await?;
                    }
                    anyhow::Ok(())
                });
            }
            while let Some(done) = tasks.join_next().await {
                done??;
            }
            if part == COUNTED {
                let after = wire.counted();
                let each =
                    |before: u64, after: u64| (after - before) as f64 / (clients * part.div_ceil(clients)) as f64;
                counts.push(format!("{:.2} / {:.2}", each(before.0, after.0), each(before.1, after.1)));
            }
        }
    }
    Ok(format!("| {} | {} |", entry.contestant.name(), counts.join(" | ")))
}

/// A table of them, as a note.
async fn statements(
    table: &mut Table,
    field: &Field,
    clients: &[usize],
    what: impl Fn(&Entry, usize) -> What,
) -> Result<()> {
    let columns = columns(clients);
    table.note(format!("| statements / round trips a command | {} |", columns.join(" | ")));
    table.note(format!("|---|{}", "---|".repeat(columns.len())));
    for entry in &field.entries {
        table.note(count_statements(entry, clients, |clients| what(entry, clients)).await?);
    }
    table.note(String::new());
    Ok(())
}

pub async fn create(settings: &Settings, control: &PgPool) -> Result<Vec<Verdict>> {
    let clients = [1, 8, 32, 128];
    let mut table = Table::new("1. create", "commands/s", true, columns(&clients));
    let field = Field::open(&settings.server, &settings.contestants).await?;
    for entry in &field.entries {
        for _ in 0..WARM {
            entry.contestant.create(Uuid::now_v7()).await?;
        }
        entry.analyze().await?;
    }
    let server = match &settings.pgbench {
        Some(pgbench) => Some(Server::open(&settings.server, pgbench.clone()).await?),
        None => None,
    };
    let mut batches: [Vec<f64>; 2] = [vec![], vec![]];
    for _ in 0..settings.rounds {
        for (column, &clients) in clients.iter().enumerate() {
            for entry in &field.entries {
                let place = entry.place(&mut table);
                table.sample(place, column, measured(control, entry, clients, settings, What::Create).await?);
            }
            // More connections than that only wait for each other, and take long to make.
            if let Some(server) = server.as_ref().filter(|_| clients <= 32) {
                let place = table.place("the server: one insert a commit", Side::Beside);
                table.value(place, column, server.events(clients, 1, settings.window).await?);
            }
        }
        if let Some(server) = &server {
            for (connections, rates) in [1, 2].into_iter().zip(&mut batches) {
                rates.push(server.events(connections, 64, settings.window).await?);
            }
        }
    }
    statements(&mut table, &field, &[1, 8, 32], |_, _| What::Create).await?;
    if let Some(server) = server {
        table.note(format!(
            "The server itself with 64 rows a commit: {} events/s on one connection, {} on two (pgbench; its single inserts use \
             as many connections as there are clients).\n",
            number(median(&batches[0])),
            number(median(&batches[1])),
        ));
        server.close().await?;
    }
    field.close().await;
    Ok(table.print())
}

pub async fn load_and_append(settings: &Settings, control: &PgPool) -> Result<Vec<Verdict>> {
    let clients = [1, 8, 32];
    let mut verdicts = Vec::new();
    for &depth in &settings.depths {
        let aggregates = (settings.seeded_events / depth.max(1)).clamp(32, 10_000);
        let columns = columns(&clients);
        let title = format!("2. load and append at depth {depth}, on {aggregates} aggregates");
        let mut table = Table::new(&title, "commands/s", true, columns.clone());
        let field = Field::open(&settings.server, &settings.contestants).await?;
        let mut seeds = Vec::new();
        for entry in &field.entries {
            let ids = entry.seed(aggregates, depth).await;
            seeds.push(Arc::new(ids.with_context(|| format!("seeding {}", entry.contestant.name()))?));
        }
        for round in 0..settings.rounds {
            for (column, &clients) in clients.iter().enumerate() {
                for (entry, ids) in field.entries.iter().zip(&seeds) {
                    // Each window begins elsewhere.
                    let offset = (round * columns.len() + column) * 7_919;
                    let what = What::Append { ids: ids.clone(), clients, depth, offset };
                    let place = entry.place(&mut table);
                    table.sample(place, column, measured(control, entry, clients, settings, what).await?);
                }
            }
        }
        if depth == 10 {
            let offset = 104_729;
            statements(&mut table, &field, &[1, 8, 32], |entry, clients| {
                let seed = field.entries.iter().position(|other| std::ptr::eq(other, entry)).unwrap_or_default();
                What::Append { ids: seeds[seed].clone(), clients, depth, offset }
            })
            .await?;
        }
        field.close().await;
        verdicts.extend(table.print());
    }
    Ok(verdicts)
}

pub async fn hot_aggregate(settings: &Settings, control: &PgPool) -> Result<Vec<Verdict>> {
    let mut table = Table::new("3. one hot aggregate", "commands/s that succeeded", true, columns(&[16]));
    let field = Field::open(&settings.server, &settings.contestants).await?;
    for entry in &field.entries {
        entry.contestant.create(Uuid::now_v7()).await?;
        entry.analyze().await?;
    }
    for _ in 0..settings.rounds {
        for entry in &field.entries {
            let id = Uuid::now_v7();
            entry.contestant.create(id).await?;
            let place = entry.place(&mut table);
            table.sample(place, 0, measured(control, entry, 16, settings, What::Hot { id }).await?);
        }
    }
    field.close().await;
    Ok(table.print())
}

pub async fn many_events(settings: &Settings, control: &PgPool) -> Result<Vec<Verdict>> {
    let clients = [1, 8];
    let title = "4. a command of 100 events on a new aggregate";
    let mut table = Table::new(title, "commands/s", true, columns(&clients));
    let field = Field::open(&settings.server, &settings.contestants).await?;
    for entry in &field.entries {
        entry.contestant.append(Uuid::now_v7(), 100, 0).await?;
        entry.analyze().await?;
    }
    for _ in 0..settings.rounds {
        for (column, &clients) in clients.iter().enumerate() {
            for entry in &field.entries {
                let place = entry.place(&mut table);
                table.sample(place, column, measured(control, entry, clients, settings, What::Many).await?);
            }
        }
    }
    statements(&mut table, &field, &[1], |_, _| What::Many).await?;
    field.close().await;
    Ok(table.print())
}

//! Rows 1 to 4: commands per second.

use std::sync::Arc;

use anyhow::{Context, Result};
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    contestant::Contestant,
    field::{Entry, Field},
    measure::{Sample, window},
    report::{Side, Table, Verdict, number},
    statistics::median,
    server::Server,
    settings::Settings,
};

/// The number of commands of all clients whose statements are counted.
const COUNTED: usize = 320;
/// The number of commands before that, which fill connection pools and statement caches.
const WARM: usize = 64;

fn columns(clients: &[usize]) -> Vec<String> {
    clients.iter().map(|clients| format!("{clients} client{}", if *clients == 1 { "" } else { "s" })).collect()
}

/// Measures one window. Errors name the contestant.
async fn measured(
    control: &PgPool,
    entry: &Entry,
    clients: usize,
    settings: &Settings,
    operation: Operation,
) -> Result<Sample> {
    let contestant = entry.contestant.clone();
    let operation = move |client, turn| {
        let (contestant, operation) = (contestant.clone(), operation.clone());
        async move { operation.once(&*contestant, client, turn).await }
    };
    let sample = window(control, clients, settings.window, operation).await;
    sample.with_context(|| format!("{} with {clients} clients", entry.contestant.name()))
}

/// The operation that clients repeat.
#[derive(Clone)]
enum Operation {
    Create,
    /// Each client cycles through its own share of the aggregates.
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

impl Operation {
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

/// Returns a table row with statements and round trips per command, for each number of clients.
async fn count_statements(entry: &Entry, clients: &[usize], operation: impl Fn(usize) -> Operation) -> Result<String> {
    let (contestant, proxy) = entry.connect_counted().await?;
    let mut counts = Vec::new();
    for &clients in clients {
        let operation = operation(clients);
        for part in [WARM, COUNTED] {
            let before = proxy.counted();
            let mut tasks = tokio::task::JoinSet::new();
            for client in 0..clients {
                let (contestant, operation) = (contestant.clone(), operation.clone());
                tasks.spawn(async move {
                    for turn in 0..part.div_ceil(clients) {
                        operation.once(&*contestant, client, turn).await?;
                    }
                    anyhow::Ok(())
                });
            }
            while let Some(done) = tasks.join_next().await {
                done??;
            }
            if part == COUNTED {
                let after = proxy.counted();
                let each =
                    |before: u64, after: u64| (after - before) as f64 / (clients * part.div_ceil(clients)) as f64;
                counts.push(format!("{:.2} / {:.2}", each(before.0, after.0), each(before.1, after.1)));
            }
        }
    }
    Ok(format!("| {} | {} |", entry.contestant.name(), counts.join(" | ")))
}

/// Adds a table of statements and round trips to the notes.
async fn statements(
    table: &mut Table,
    field: &Field,
    clients: &[usize],
    operation: impl Fn(&Entry, usize) -> Operation,
) -> Result<()> {
    let columns = columns(clients);
    table.note(format!("| statements / round trips per command | {} |", columns.join(" | ")));
    table.note(format!("|---|{}", "---|".repeat(columns.len())));
    for entry in &field.entries {
        table.note(count_statements(entry, clients, |clients| operation(entry, clients)).await?);
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
                table.sample(place, column, measured(control, entry, clients, settings, Operation::Create).await?);
            }
            // More connections only wait for each other and take long to open.
            if let Some(server) = server.as_ref().filter(|_| clients <= 32) {
                let place = table.place("the server: one insert per commit", Side::Reference);
                table.value(place, column, server.events(clients, 1, settings.window).await?);
            }
        }
        if let Some(server) = &server {
            for (connections, rates) in [1, 2].into_iter().zip(&mut batches) {
                rates.push(server.events(connections, 64, settings.window).await?);
            }
        }
    }
    statements(&mut table, &field, &[1, 8, 32], |_, _| Operation::Create).await?;
    if let Some(server) = server {
        table.note(format!(
            "The server with 64 rows per commit: {} events/s on one connection, {} on two (pgbench; its single inserts use one \
             connection per client).\n",
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
                    // Each window starts at another aggregate.
                    let offset = (round * columns.len() + column) * 7_919;
                    let operation = Operation::Append { ids: ids.clone(), clients, depth, offset };
                    let place = entry.place(&mut table);
                    table.sample(place, column, measured(control, entry, clients, settings, operation).await?);
                }
            }
        }
        if depth == 10 {
            let offset = 104_729;
            statements(&mut table, &field, &[1, 8, 32], |entry, clients| {
                let seed = field.entries.iter().position(|other| std::ptr::eq(other, entry)).unwrap_or_default();
                Operation::Append { ids: seeds[seed].clone(), clients, depth, offset }
            })
            .await?;
        }
        field.close().await;
        verdicts.extend(table.print());
    }
    Ok(verdicts)
}

pub async fn hot_aggregate(settings: &Settings, control: &PgPool) -> Result<Vec<Verdict>> {
    let mut table = Table::new("3. one hot aggregate", "successful commands/s", true, columns(&[16]));
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
            table.sample(place, 0, measured(control, entry, 16, settings, Operation::Hot { id }).await?);
        }
    }
    field.close().await;
    Ok(table.print())
}

pub async fn many_events(settings: &Settings, control: &PgPool) -> Result<Vec<Verdict>> {
    let clients = [1, 8];
    let title = "4. command with 100 events on a new aggregate";
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
                table.sample(place, column, measured(control, entry, clients, settings, Operation::Many).await?);
            }
        }
    }
    statements(&mut table, &field, &[1], |_, _| Operation::Many).await?;
    field.close().await;
    Ok(table.print())
}

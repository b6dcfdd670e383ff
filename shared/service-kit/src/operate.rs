//! Looking after a service: its events, its subscriptions, its relay.
//!
//! The problem: somebody must be able to see what happened, to repair a handler's tables, and to say what becomes of events
//! that a handler can't take, without writing SQL at night.
//!
//! The invariant: each operation goes the way the service itself goes (its handlers, the gate, the relay's fence), so it is safe
//! beside running processes, and says in its exit code how it ended: 0 done, 1 a fault, 2 wrong usage, 3 there is no such
//! thing, 4 it is not possible now. Output is text for people, or JSON with `--json`; progress and errors go elsewhere.

mod arguments;
mod bar;
mod error;
mod events;
mod output;

use std::{process::ExitCode, sync::Arc};

use epoch::{Position, envelope::StreamKey};
use epoch_postgres::{
    PgHandler, PgStore, PgSubscription, Progress, Rebuild, Relay, building_generation, dead_letters, replay,
};
use serde_json::json;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

pub use self::{
    arguments::{AnyOperation, CommonArgs, DeadLetters, Operation, RelayCommand, Stream},
    error::OperateError,
    events::EventType,
};
use self::{bar::Bar, output::Output};
use crate::{
    cli::ProcessArgs,
    server,
    service::{Host, RELAY, Service, ServiceError, Shared, bus_beside},
};

/// Does it, and says how it ended.
pub async fn run<S: Service>(operation: AnyOperation) -> ExitCode {
    match operate::<S>(operation).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", S::NAME);
            ExitCode::from(error.code())
        }
    }
}

async fn operate<S: Service>(operation: AnyOperation) -> Result<(), OperateError> {
    match operation {
        AnyOperation::Relay { process, command } => relay::<S>(&process, &command).await,
        AnyOperation::Operation(Operation::Events { aggregate, id, from, common }) => {
            let opened = Opened::of::<S>(&common.process)?;
            events::show::<S>(&opened.store, (&aggregate, id), from, common.json).await
        }
        AnyOperation::Operation(Operation::Subscriptions { common }) => subscriptions::<S>(&common).await,
        AnyOperation::Operation(Operation::Replay { subscription, from, common }) => {
            let opened = Opened::of::<S>(&common.process)?;
            let gate = opened.subscription(&subscription).await?;
            let reached = replay(&opened.store, &gate, Position::new(from)).await?;
            let text = format!("{subscription} has everything up to position {reached}");
            Ok(Output::new(common.json)
                .line(&text, &json!({ "subscription": subscription, "position": reached.get() }))?)
        }
        AnyOperation::Operation(Operation::Rebuild { subscription, common }) => {
            rebuild::<S>(&subscription, &common).await
        }
        AnyOperation::Operation(Operation::DeadLetters(command)) => match command {
            DeadLetters::List { subscription, limit, common } => list::<S>(subscription, limit, &common).await,
            DeadLetters::Retry(stream) => release::<S>(&stream, false).await,
            DeadLetters::Skip(stream) => release::<S>(&stream, true).await,
        },
    }
}

/// A service without its tasks.
struct Opened {
    shared: Shared,
    store: PgStore,
    progress: Progress,
    handlers: Vec<Arc<dyn PgHandler>>,
    appender: AbortHandle,
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.appender.abort();
    }
}

impl Opened {
    fn of<S: Service>(process: &ProcessArgs) -> Result<Self, OperateError> {
        let shared = process.shared();
        let pool = shared.database.pool(S::NAME).map_err(ServiceError::from)?;
        let (store, appender) = PgStore::new(pool.clone(), shared.local.clone());
        let appender = tokio::spawn(appender.run()).abort_handle();
        let progress = Progress::new(pool);
        let host = Host {
            store: store.clone(),
            progress: progress.clone(),
            secrets: shared.secrets.clone(),
            peers: shared.peers.clone(),
            stop: CancellationToken::new(),
        };
        let handlers = S::assemble(&host)?.all_handlers().map_err(ServiceError::from)?;
        Ok(Self { shared, store, progress, handlers, appender })
    }

    /// The subscription `name`, or, as in `name@generation`, that of a rebuild that isn't finished.
    async fn subscription(&self, name: &str) -> Result<PgSubscription, OperateError> {
        let (plain, generation) = name.split_once('@').map_or((name, None), |(plain, number)| (plain, Some(number)));
        let Some(handler) = self.handlers.iter().find(|handler| handler.name() == plain) else {
            let known: Vec<_> = self.handlers.iter().map(|handler| handler.name()).collect();
            return Err(OperateError::NoSubscription { name: name.to_owned(), known: known.join(", ") });
        };
        let serving = PgSubscription::new(Arc::clone(handler), self.store.clone(), self.progress.clone());
        if generation.is_none() {
            return Ok(serving);
        }
        let building = building_generation(&serving).await?;
        let building = building.filter(|building| epoch::handler::Subscription::name(building) == name);
        building.ok_or_else(|| OperateError::Nothing { what: format!("{name} is not being built") })
    }
}

async fn subscriptions<S: Service>(common: &CommonArgs) -> Result<(), OperateError> {
    let opened = Opened::of::<S>(&common.process)?;
    let output = Output::new(common.json);
    let header = ["SUBSCRIPTION", "GENERATION", "BUILDING", "LAG", "SECONDS", "PARKED", "LISTENS TO"];
    output.row(header.map(str::to_owned), None)?;
    for handler in &opened.handlers {
        let status = opened.progress.status(&**handler).await?;
        let lag = status.lag;
        let text = [
            status.name.to_owned(),
            status.generation.to_string(),
            status.building.map_or_else(String::new, |building| building.to_string()),
            format!("{}{}", lag.events, if lag.exact { "" } else { "+" }),
            (lag.behind_ms / 1_000).to_string(),
            lag.parked.to_string(),
            status.aggregates.join(", "),
        ];
        let json = json!({
            "subscription": status.name, "aggregates": status.aggregates, "rebuildable": status.rebuildable,
            "generation": status.generation, "revision": status.revision, "own_revision": status.own_revision,
            "building": status.building, "lag_events": lag.events, "lag_exact": lag.exact,
            "lag_ms": lag.behind_ms, "parked_aggregates": lag.parked,
        });
        output.row(text, Some(&json))?;
    }
    Ok(())
}

async fn rebuild<S: Service>(name: &str, common: &CommonArgs) -> Result<(), OperateError> {
    let opened = Opened::of::<S>(&common.process)?;
    let subscription = opened.subscription(name).await?;
    let bus = bus_beside::<S>(&opened.shared, &opened.store).await?;
    let stop = CancellationToken::new();
    let signalled = stop.clone();
    let signals = tokio::spawn(async move {
        if server::shutdown_signal().await.is_ok() {
            signalled.cancel();
        }
    });
    let mut bar = Bar::new();
    let rebuilt = Rebuild::new(subscription, bus).run(&stop, |progress| bar.show(progress)).await;
    bar.end();
    signals.abort();
    let rebuilt = rebuilt?;
    let text = format!("{name} is at generation {}, {} events applied", rebuilt.generation, rebuilt.applied);
    let json = json!({
        "subscription": name, "generation": rebuilt.generation, "applied": rebuilt.applied, "resumed": rebuilt.resumed,
    });
    Ok(Output::new(common.json).line(&text, &json)?)
}

async fn list<S: Service>(subscription: Option<String>, limit: i64, common: &CommonArgs) -> Result<(), OperateError> {
    let opened = Opened::of::<S>(&common.process)?;
    let names = match subscription {
        Some(name) => vec![name],
        None => opened.handlers.iter().map(|handler| handler.name().to_owned()).collect(),
    };
    let output = Output::new(common.json);
    for name in names {
        let gate = opened.subscription(&name).await?;
        for letter in dead_letters::list(&gate, limit).await? {
            let DeadLetterText { parked, error } = DeadLetterText::of(&letter);
            let text = format!(
                "{name}  {} {}  version {}  {}  {error}",
                letter.stream.aggregate, letter.stream.id, letter.version, letter.event_name
            );
            let json = json!({
                "subscription": name, "aggregate": letter.stream.aggregate, "aggregate_id": letter.stream.id,
                "version": letter.version.get(), "event": letter.event_name, "parked": parked, "error": letter.error,
                "attempts": letter.attempts, "queued_at": letter.queued_at.to_string(), "waiting": letter.waiting,
            });
            output.line(&text, &json)?;
        }
    }
    Ok(())
}

struct DeadLetterText {
    parked: &'static str,
    error: String,
}

impl DeadLetterText {
    fn of(letter: &dead_letters::DeadLetter) -> Self {
        let parked = match letter.parked {
            epoch::gate::Parked::Gap => "gap",
            epoch::gate::Parked::Failed => "failed",
        };
        let error = letter.error.as_deref().unwrap_or("waits");
        Self { parked, error: format!("{error} ({} attempts)", letter.attempts) }
    }
}

async fn release<S: Service>(stream: &Stream, skip: bool) -> Result<(), OperateError> {
    let opened = Opened::of::<S>(&stream.common.process)?;
    let gate = opened.subscription(&stream.subscription).await?;
    let key = StreamKey { aggregate: stream.aggregate.clone().into(), id: stream.id };
    if !dead_letters::is_parked(&gate, &key).await? {
        let what = format!("{} {} is not parked for {}", stream.aggregate, stream.id, stream.subscription);
        return Err(OperateError::Nothing { what });
    }
    let applied = if skip { dead_letters::skip(&gate, &key).await? } else { dead_letters::retry(&gate, &key).await? };
    let skipped = if skip { "one event skipped, " } else { "" };
    let text = format!("{skipped}{applied} applied");
    let json = json!({ "skipped": u8::from(skip), "applied": applied });
    Ok(Output::new(stream.common.json).line(&text, &json)?)
}

async fn relay<S: Service>(process: &ProcessArgs, command: &RelayCommand) -> Result<(), OperateError> {
    let opened = Opened::of::<S>(process)?;
    // It is only asked, so any bus will do.
    let relay = Relay::new(opened.store.clone(), Arc::new(opened.shared.memory.clone()), RELAY);
    match command {
        RelayCommand::Status { json } => {
            let status = relay.status().await?;
            let (published, head) = (status.published.get(), status.head.get());
            let text = format!(
                "published {published} of {head} positions, {} behind; {} leaders so far",
                head.saturating_sub(published),
                status.fence
            );
            let object = json!({ "published": published, "head": head, "leaders": status.fence });
            Ok(Output::new(*json).line(&text, &object)?)
        }
        RelayCommand::Rewind { to, json } => {
            let position = relay.rewind(Position::new(*to)).await?.get();
            let object = json!({ "position": position });
            Ok(Output::new(*json).line(&format!("publishes again after position {position}"), &object)?)
        }
    }
}

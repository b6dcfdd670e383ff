//! The operator's commands: events, subscriptions, replays, rebuilds, dead letters and the relay of a service.
//!
//! Operations use the service's own handlers, its delivery gate and the relay's fence, so they are safe next to running
//! processes. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 not possible now. Standard output has text, or JSON
//! with `--json`; progress and errors go to standard error.

mod arguments;
mod error;
mod events;
mod output;
mod progress_bar;

use std::{process::ExitCode, sync::Arc};

use epoch::{Position, envelope::StreamKey};
use epoch_postgres::{PgSubscription, Rebuild, Relay, building_generation, dead_letters, replay};
use http_kit::server;
use serde_json::json;
use tokio_util::sync::CancellationToken;

pub use self::{
    arguments::{AnyOperation, CommonArgs, DeadLettersCommand, Operation, ParkedStream, RelayCommand},
    error::OperationError,
};
use self::{output::Output, progress_bar::ProgressBar};
use crate::{
    config::ProcessArgs,
    process::{OpenService, ProcessContext, RELAY, bus_opener, open},
    service::{Service, ServiceError},
};

/// Runs an operation. Prints an error on standard error and returns its exit code.
pub async fn run<S: Service>(operation: AnyOperation) -> ExitCode {
    match execute::<S>(operation).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", S::NAME);
            ExitCode::from(error.code())
        }
    }
}

async fn execute<S: Service>(operation: AnyOperation) -> Result<(), OperationError> {
    match operation {
        AnyOperation::Relay { process, command } => relay::<S>(&process, &command).await,
        AnyOperation::Operation(Operation::Events { aggregate, id, from, common }) => {
            let opened = OperatedService::open::<S>(&common.process)?;
            events::print::<S>(&opened.service.store, &aggregate, id, from, common.json).await
        }
        AnyOperation::Operation(Operation::Subscriptions { common }) => list_subscriptions::<S>(&common).await,
        AnyOperation::Operation(Operation::Replay { subscription, from, common }) => {
            let opened = OperatedService::open::<S>(&common.process)?;
            let gate = opened.subscription(&subscription).await?;
            let reached = replay(&opened.service.store, &gate, Position::new(from)).await?;
            let text = format!("replayed {subscription} up to position {reached}");
            Ok(Output::new(common.json)
                .line(&text, &json!({ "subscription": subscription, "position": reached.get() }))?)
        }
        AnyOperation::Operation(Operation::Rebuild { subscription, common }) => {
            rebuild::<S>(&subscription, &common).await
        }
        AnyOperation::Operation(Operation::DeadLetters(command)) => match command {
            DeadLettersCommand::List { subscription, limit, common } => {
                list_dead_letters::<S>(subscription, limit, &common).await
            }
            DeadLettersCommand::Retry(stream) => release::<S>(&stream, false).await,
            DeadLettersCommand::Skip(stream) => release::<S>(&stream, true).await,
        },
    }
}

/// A service without its tasks.
struct OperatedService {
    context: ProcessContext,
    service: OpenService,
}

impl OperatedService {
    fn open<S: Service>(args: &ProcessArgs) -> Result<Self, OperationError> {
        let context = ProcessContext::new(args);
        let pool = context.database.pool(S::NAME).map_err(ServiceError::from)?;
        let service = open::<S>(&context, pool, CancellationToken::new())?;
        Ok(Self { context, service })
    }

    /// Returns the subscription `name`, or the subscription of an unfinished rebuild, `name@generation`.
    async fn subscription(&self, name: &str) -> Result<PgSubscription, OperationError> {
        let (base_name, generation) = name.split_once('@').map_or((name, None), |(base, number)| (base, Some(number)));
        let Some(handler) = self.service.handlers.iter().find(|handler| handler.name() == base_name) else {
            let known: Vec<_> = self.service.handlers.iter().map(|handler| handler.name()).collect();
            return Err(OperationError::NoSubscription { name: name.to_owned(), known: known.join(", ") });
        };
        let serving =
            PgSubscription::new(Arc::clone(handler), self.service.store.clone(), self.service.progress.clone());
        if generation.is_none() {
            return Ok(serving);
        }
        let building = building_generation(&serving).await?;
        let building = building.filter(|building| epoch::handler::Subscription::name(building) == name);
        building.ok_or_else(|| OperationError::NotFound { detail: format!("subscription {name} is not being rebuilt") })
    }
}

async fn list_subscriptions<S: Service>(common: &CommonArgs) -> Result<(), OperationError> {
    let opened = OperatedService::open::<S>(&common.process)?;
    let output = Output::new(common.json);
    let header = ["SUBSCRIPTION", "GENERATION", "BUILDING", "LAG", "SECONDS", "PARKED", "AGGREGATES"];
    output.row(header.map(str::to_owned), None)?;
    for handler in &opened.service.handlers {
        let status = opened.service.progress.status(&**handler).await?;
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

async fn rebuild<S: Service>(name: &str, common: &CommonArgs) -> Result<(), OperationError> {
    let opened = OperatedService::open::<S>(&common.process)?;
    let subscription = opened.subscription(name).await?;
    let bus = bus_opener::<S>(&opened.context, &opened.service.store)
        .open_for_operation()
        .await
        .map_err(ServiceError::from)?;
    let stop = CancellationToken::new();
    let stop_on_signal = stop.clone();
    let signals = tokio::spawn(async move {
        if server::shutdown_signal().await.is_ok() {
            stop_on_signal.cancel();
        }
    });
    let mut bar = ProgressBar::new();
    let rebuilt = Rebuild::new(subscription, bus).run(&stop, |progress| bar.show(progress)).await;
    bar.finish();
    signals.abort();
    let rebuilt = rebuilt?;
    let text =
        format!("subscription {name} is at generation {}, {} events applied", rebuilt.generation, rebuilt.applied);
    let json = json!({
        "subscription": name, "generation": rebuilt.generation, "applied": rebuilt.applied, "resumed": rebuilt.resumed,
    });
    Ok(Output::new(common.json).line(&text, &json)?)
}

async fn list_dead_letters<S: Service>(
    subscription: Option<String>,
    limit: i64,
    common: &CommonArgs,
) -> Result<(), OperationError> {
    let opened = OperatedService::open::<S>(&common.process)?;
    let names = match subscription {
        Some(name) => vec![name],
        None => opened.service.handlers.iter().map(|handler| handler.name().to_owned()).collect(),
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
            epoch::gate::ParkReason::Gap => "gap",
            epoch::gate::ParkReason::Failed => "failed",
        };
        let error = letter.error.as_deref().unwrap_or("queued behind an earlier event");
        Self { parked, error: format!("{error} ({} attempts)", letter.attempts) }
    }
}

async fn release<S: Service>(stream: &ParkedStream, skip: bool) -> Result<(), OperationError> {
    let opened = OperatedService::open::<S>(&stream.common.process)?;
    let gate = opened.subscription(&stream.subscription).await?;
    let key = StreamKey { aggregate: stream.aggregate.clone().into(), id: stream.id };
    if !dead_letters::is_parked(&gate, &key).await? {
        let detail =
            format!("{} {} is not parked for subscription {}", stream.aggregate, stream.id, stream.subscription);
        return Err(OperationError::NotFound { detail });
    }
    let applied = if skip { dead_letters::skip(&gate, &key).await? } else { dead_letters::retry(&gate, &key).await? };
    let skipped = if skip { "one event skipped, " } else { "" };
    let text = format!("{skipped}{applied} applied");
    let json = json!({ "skipped": u8::from(skip), "applied": applied });
    Ok(Output::new(stream.common.json).line(&text, &json)?)
}

async fn relay<S: Service>(process: &ProcessArgs, command: &RelayCommand) -> Result<(), OperationError> {
    let opened = OperatedService::open::<S>(process)?;
    // Status and rewind do not publish, so any bus will do.
    let relay = Relay::new(opened.service.store.clone(), Arc::new(opened.context.memory.clone()), RELAY);
    match command {
        RelayCommand::Status { json } => {
            let status = relay.status().await?;
            let (published, head) = (status.published.get(), status.head.get());
            let text = format!(
                "published {published} of {head} positions, lag {}, leader changes {}",
                head.saturating_sub(published),
                status.fence
            );
            let object = json!({ "published": published, "head": head, "leaders": status.fence });
            Ok(Output::new(*json).line(&text, &object)?)
        }
        RelayCommand::Rewind { to, json } => {
            let position = relay.rewind(Position::new(*to)).await?.get();
            let object = json!({ "position": position });
            Ok(Output::new(*json).line(&format!("relay republishes events after position {position}"), &object)?)
        }
    }
}

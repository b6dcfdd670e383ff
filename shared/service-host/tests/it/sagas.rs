//! A service with a saga: its timers fire and its effects are sent without additional wiring, also after a crash.

use std::sync::{Arc, LazyLock, Mutex};

use async_trait::async_trait;
use axum::Router;
use epoch::{
    Aggregate, CommandContext, Envelope, Metadata, Repository, Timestamp, Version,
    clock::{Clock, ManualClock},
    event::CodecError,
    saga::{Action, ActionOf, Input, InputOf, Saga},
    store::Streamer,
};
use epoch_postgres::{
    CommandOutcome, EffectSender, HandlerError, PgSaga, PgStore, PgTx, SagaCommands, SendError, saga::SagaStatus,
    testkit::TestDatabase,
};
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use service_host::{
    process::{Process, Roles, RunningService},
    sagas::ServiceSaga,
    service::{Service, ServiceContext, ServiceError, ServiceParts},
    telemetry,
    testkit::{eventually, process_context},
};
use sqlx::migrate::Migrator;
use tokio::{sync::Notify, time::Duration};
use utoipa::openapi::OpenApi;
use uuid::Uuid;

const LIMIT: Duration = Duration::from_secs(20);
const START: i64 = 1_700_000_000_000;
const DUE: i64 = START + 60_000;
/// After the lease of an effect that a crashed process was sending.
const LATER: i64 = DUE + 61_000;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Written {}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Reminded {}

epoch::events! {
    enum NoteEvent {
        Written = [r#"{"type":"record","name":"Written","fields":[]}"#],
        Reminded = [r#"{"type":"record","name":"Reminded","fields":[]}"#],
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum NoteCommand {
    Write,
    Remind,
}

#[derive(Debug, thiserror::Error)]
enum NoError {}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Note {}

impl Aggregate for Note {
    const NAME: &'static str = "note";
    type Command = NoteCommand;
    type Event = NoteEvent;
    type Error = NoError;

    fn decide(&self, command: &NoteCommand) -> Result<Vec<NoteEvent>, NoError> {
        Ok(vec![match command {
            NoteCommand::Write => Written {}.into(),
            NoteCommand::Remind => Reminded {}.into(),
        }])
    }

    fn evolve(&mut self, _: &NoteEvent) {}
}

/// Executes a reminder and sends a letter one minute after a note was written.
struct Reminder;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct ReminderState(Option<Uuid>);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Letter;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Minute;

impl Saga for Reminder {
    const NAME: &'static str = "reminder";
    type State = ReminderState;
    type Event = Uuid;
    type Command = (Uuid, NoteCommand);
    type Refusal = NoError;
    type Effect = Letter;
    type Answer = ();
    type Timer = Minute;
    type Error = NoError;

    fn aggregates(&self) -> &'static [&'static str] {
        &[Note::NAME]
    }

    fn correlate(&self, event: &Envelope) -> Result<Option<(String, Uuid)>, CodecError> {
        Ok(match event.decode()? {
            NoteEvent::Written(_) => Some((event.aggregate_id.to_string(), event.aggregate_id)),
            NoteEvent::Reminded(_) => None,
        })
    }

    fn react(
        &self,
        state: &mut ReminderState,
        input: &InputOf<Self>,
        _: Timestamp,
    ) -> Result<Vec<ActionOf<Self>>, NoError> {
        Ok(match (input, state.0) {
            (Input::Event(note), _) => {
                state.0 = Some(*note);
                vec![Action::SetTimer { timer: Minute, at: Timestamp::from_millis(DUE) }]
            }
            (Input::TimedOut(Minute), Some(note)) => {
                vec![Action::command((note, NoteCommand::Remind)), Action::send(Letter)]
            }
            (Input::Delivered { .. }, _) => vec![Action::Complete],
            _ => vec![],
        })
    }
}

struct Commands(Repository<Note, PgStore>);

#[async_trait]
impl SagaCommands<Reminder> for Commands {
    async fn execute(
        &self,
        tx: &mut PgTx,
        (note, command): &(Uuid, NoteCommand),
        context: &CommandContext,
    ) -> Result<CommandOutcome<NoError>, HandlerError> {
        CommandOutcome::from_executed(tx.execute(&self.0, *note, command, context).await, |refusal| refusal)
    }
}

/// The receiver of letters and the clock, which outlive the service's processes.
struct World {
    clock: Arc<ManualClock>,
    /// The keys of the received letters.
    keys: Mutex<Vec<Uuid>>,
    received: Notify,
    /// Lets the receiver respond.
    respond: Notify,
}

static WORLD: LazyLock<World> = LazyLock::new(|| World {
    clock: Arc::new(ManualClock::at(Timestamp::from_millis(START))),
    keys: Mutex::default(),
    received: Notify::new(),
    respond: Notify::new(),
});

/// Receives letters and responds once [`World::respond`] is notified.
struct Receiver;

#[async_trait]
impl EffectSender<Reminder> for Receiver {
    async fn send(&self, _: &Letter, key: Uuid, _: Option<&Metadata>) -> Result<(), SendError> {
        WORLD.keys.lock().unwrap().push(key);
        WORLD.received.notify_one();
        WORLD.respond.notified().await;
        Ok(())
    }
}

struct Notes;

impl Service for Notes {
    const NAME: &'static str = "notes";
    const PORT: u16 = 0;

    fn migrations() -> &'static Migrator {
        &Migrator::DEFAULT
    }

    fn schemas() -> Vec<&'static str> {
        Vec::new()
    }

    fn assemble(context: &ServiceContext) -> Result<ServiceParts, ServiceError> {
        let commands = Commands(Repository::new(context.store.clone()));
        let saga = PgSaga::new(Reminder, commands).with_clock(Arc::clone(&WORLD.clock) as Arc<dyn Clock>);
        Ok(ServiceParts {
            router: Router::new(),
            openapi: OpenApi::default(),
            handlers: Vec::new(),
            sagas: vec![ServiceSaga::new(saga, Arc::new(Receiver))],
            tasks: Vec::new(),
        })
    }
}

struct NotesProcess {
    store: PgStore,
    process: Process,
    _service: RunningService,
}

impl NotesProcess {
    async fn start(database: &TestDatabase) -> Self {
        let context = process_context(&database.url());
        let mut process = Process::new();
        let service = process.start::<Notes>(&context, Roles::ALL).await.unwrap();
        let (store, appender) = PgStore::new(context.database.pool(Notes::NAME).unwrap(), context.local.clone());
        tokio::spawn(appender.run());
        Self { store, process, _service: service }
    }

    async fn status(&self, note: Uuid) -> Option<SagaStatus> {
        epoch_postgres::saga::status(&self.store, Reminder::NAME, &note.to_string()).await.unwrap()
    }

    async fn reminders(&self, note: Uuid) -> usize {
        let events: Vec<Envelope> = self.store.stream(Note::NAME, note, Version::ZERO).try_collect().await.unwrap();
        events.iter().filter(|event| &*event.event_name == "Reminded").count()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn saga_completes_after_a_crash_and_a_shutdown() {
    let metrics = telemetry::metrics_handle().unwrap();
    let database = TestDatabase::create().await;
    let note = Uuid::now_v7();
    let first = NotesProcess::start(&database).await;
    let notes = Repository::<Note, _>::new(first.store.clone());
    notes.execute(note, &NoteCommand::Write, &CommandContext::new()).await.unwrap();
    let set = eventually("the timer is set", async || first.status(note).await.filter(|status| status.timers == 1));
    assert_eq!(set.await.effects, 0);
    assert_eq!(first.reminders(note).await, 0, "the timer is not due");

    WORLD.clock.set(Timestamp::from_millis(DUE));
    tokio::time::timeout(LIMIT, WORLD.received.notified()).await.expect("the letter is sent");
    assert_eq!(first.reminders(note).await, 1, "the timer has fired");
    // The process crashes after the receiver got the letter and before it responds.
    drop(first);

    let second = NotesProcess::start(&database).await;
    assert_eq!(second.status(note).await.unwrap().effects, 1, "the effect is still in the outbox");
    WORLD.clock.set(Timestamp::from_millis(LATER));
    tokio::time::timeout(LIMIT, WORLD.received.notified()).await.expect("the letter is sent again");
    let keys = WORLD.keys.lock().unwrap().clone();
    assert_eq!(keys, [keys[0], keys[0]], "the same key");
    eventually("the outbox is counted", async || {
        metrics.render().contains(r#"epoch_saga_waiting{saga="reminder",what="effects"} 1"#).then_some(())
    })
    .await;

    // Shutdown waits for the response.
    let NotesProcess { store, process, _service } = second;
    let stop = process.supervisor.token();
    let respond = async {
        stop.cancelled().await;
        WORLD.respond.notify_one();
    };
    let (aborted, ()) = tokio::join!(process.supervisor.shutdown(LIMIT), respond);
    assert_eq!(aborted, Vec::<Arc<str>>::new(), "no task was aborted");
    let status = epoch_postgres::saga::status(&store, Reminder::NAME, &note.to_string()).await.unwrap().unwrap();
    assert_eq!((status.phase.as_str(), status.timers, status.effects), ("completed", 0, 0));
    assert_eq!(WORLD.keys.lock().unwrap().len(), 2);
    let rendered = metrics.render();
    for counter in [r#"epoch_saga_timers_total{saga="reminder"} 1"#, r#"epoch_saga_effects_total{saga="reminder"} 1"#] {
        assert!(rendered.contains(counter), "{counter}");
    }
    drop(_service);
    database.drop().await;
}

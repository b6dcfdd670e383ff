//! A service with a saga: its timers fire and its effects are had without anybody wiring that up, also after it was killed.

use std::sync::{Arc, LazyLock, Mutex};

use async_trait::async_trait;
use axum::Router;
use epoch::{
    Aggregate, CommandContext, Envelope, Repository, Timestamp, Version,
    clock::{Clock, ManualClock},
    context::Metadata,
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
use service_kit::{
    health::Health,
    saga::ServiceSaga,
    service::{Assembled, Host, Roles, Running, Service, ServiceError, start},
    supervisor::Supervisor,
    telemetry, testkit,
};
use sqlx::migrate::Migrator;
use tokio::{sync::Notify, time::Duration};
use tokio_util::sync::CancellationToken;
use utoipa::openapi::OpenApi;
use uuid::Uuid;

const LIMIT: Duration = Duration::from_secs(20);
const START: i64 = 1_700_000_000_000;
const DUE: i64 = START + 60_000;
/// Longer than an effect is on loan to somebody who may have died.
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

/// A minute after a note was written: remind of it, and send a letter.
struct Reminder;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Of(Option<Uuid>);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Letter;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Minute;

impl Saga for Reminder {
    const NAME: &'static str = "reminder";
    type State = Of;
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

    fn react(&self, state: &mut Of, input: &InputOf<Self>, _: Timestamp) -> Result<Vec<ActionOf<Self>>, NoError> {
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

/// The other side, and the time: both outlive the service's processes.
struct World {
    clock: Arc<ManualClock>,
    asked: Mutex<Vec<Uuid>>,
    heard: Notify,
    answer: Notify,
}

static WORLD: LazyLock<World> = LazyLock::new(|| World {
    clock: Arc::new(ManualClock::at(Timestamp::from_millis(START))),
    asked: Mutex::default(),
    heard: Notify::new(),
    answer: Notify::new(),
});

/// Hears, and answers when it is let.
struct Post;

#[async_trait]
impl EffectSender<Reminder> for Post {
    async fn send(&self, _: &Letter, key: Uuid, _: Option<&Metadata>) -> Result<(), SendError> {
        WORLD.asked.lock().unwrap().push(key);
        WORLD.heard.notify_one();
        WORLD.answer.notified().await;
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

    fn assemble(host: &Host) -> Result<Assembled, ServiceError> {
        let commands = Commands(Repository::new(host.store.clone()));
        let saga = PgSaga::new(Reminder, commands).with_clock(Arc::clone(&WORLD.clock) as Arc<dyn Clock>);
        Ok(Assembled {
            router: Router::new(),
            openapi: OpenApi::default(),
            handlers: Vec::new(),
            sagas: vec![ServiceSaga::new(saga, Arc::new(Post))],
            tasks: Vec::new(),
        })
    }
}

struct Process {
    store: PgStore,
    supervisor: Supervisor,
    _running: Running,
}

impl Process {
    async fn start(database: &TestDatabase) -> Self {
        let shared = testkit::shared(&database.url());
        let mut supervisor = Supervisor::new(CancellationToken::new());
        let running = start::<Notes>(&shared, Roles::ALL, &mut supervisor, &Health::new()).await.unwrap();
        let (store, appender) = PgStore::new(shared.database.pool(Notes::NAME).unwrap(), shared.local.clone());
        tokio::spawn(appender.run());
        Self { store, supervisor, _running: running }
    }

    async fn until<T, F: Future<Output = Option<T>>>(&self, what: &str, mut found: impl FnMut() -> F) -> T {
        let deadline = tokio::time::Instant::now() + LIMIT;
        loop {
            if let Some(value) = found().await {
                return value;
            }
            assert!(tokio::time::Instant::now() < deadline, "not in time: {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
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
async fn a_service_with_a_saga_keeps_its_word_through_a_kill_and_a_shutdown() {
    let metrics = telemetry::metrics_handle().unwrap();
    let database = TestDatabase::create().await;
    let note = Uuid::now_v7();
    let first = Process::start(&database).await;
    let notes = Repository::<Note, _>::new(first.store.clone());
    notes.execute(note, &NoteCommand::Write, &CommandContext::new()).await.unwrap();
    let set = first.until("the timer is set", async || first.status(note).await.filter(|status| status.timers == 1));
    assert_eq!(set.await.effects, 0);
    assert_eq!(first.reminders(note).await, 0, "it isn't due");

    WORLD.clock.set(Timestamp::from_millis(DUE));
    tokio::time::timeout(LIMIT, WORLD.heard.notified()).await.expect("the letter is sent");
    assert_eq!(first.reminders(note).await, 1, "the timer has fired");
    // Killed while the other side has the letter, and before it has answered.
    drop(first);

    let second = Process::start(&database).await;
    assert_eq!(second.status(note).await.unwrap().effects, 1, "it isn't forgotten");
    WORLD.clock.set(Timestamp::from_millis(LATER));
    tokio::time::timeout(LIMIT, WORLD.heard.notified()).await.expect("the letter is sent once more");
    let asked = WORLD.asked.lock().unwrap().clone();
    assert_eq!(asked, [asked[0], asked[0]], "under the same key");
    second
        .until("the outbox is counted", async || {
            metrics.render().contains(r#"epoch_saga_waiting{saga="reminder",what="effects"} 1"#).then_some(())
        })
        .await;

    // A shutdown lets it hear the answer.
    let Process { store, supervisor, _running } = second;
    let stop = supervisor.token();
    let answered = async {
        stop.cancelled().await;
        WORLD.answer.notify_one();
    };
    let (aborted, ()) = tokio::join!(supervisor.shutdown(LIMIT), answered);
    assert_eq!(aborted, Vec::<Arc<str>>::new(), "nothing was cut off");
    let status = epoch_postgres::saga::status(&store, Reminder::NAME, &note.to_string()).await.unwrap().unwrap();
    assert_eq!((status.phase.as_str(), status.timers, status.effects), ("completed", 0, 0));
    assert_eq!(WORLD.asked.lock().unwrap().len(), 2);
    let shown = metrics.render();
    for counted in [r#"epoch_saga_timers_total{saga="reminder"} 1"#, r#"epoch_saga_effects_total{saga="reminder"} 1"#] {
        assert!(shown.contains(counted), "{counted}");
    }
    drop(_running);
    database.drop().await;
}

//! Forgetting data subjects: the log keeps its bytes, and the personal data in it becomes unreadable.

use std::sync::Arc;

use async_trait::async_trait;
use epoch::{
    Aggregate, Batch, CommandContext, FastPath, Position, Repository,
    handler::EventHandler,
    message::Message,
    personal::{KeyStore, Keyring, KeyringError, MasterKey, MasterKeys, Opened, Sealed, SubjectKey},
    store::Streamer,
};
use epoch_postgres::{
    HandlerError, PgKeyStore, PgStore, PgSubscription, PgTx, Progress, replay, testkit::TestDatabase,
};
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use sqlx::{PgPool, Row};
use uuid::Uuid;

use crate::person_event::{PersonEvent, Registered, SECRET};

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Person {
    email: Option<Sealed<String>>,
}

#[derive(Debug, PartialEq, thiserror::Error)]
#[error("registered already")]
struct RegisteredAlready;

impl Aggregate for Person {
    const NAME: &'static str = "person";
    type Command = Registered;
    type Event = PersonEvent;
    type Error = RegisteredAlready;

    fn decide(&self, command: &Registered) -> Result<Vec<PersonEvent>, RegisteredAlready> {
        if self.email.is_some() { Err(RegisteredAlready) } else { Ok(vec![command.clone().into()]) }
    }

    fn evolve(&mut self, event: &PersonEvent) {
        let PersonEvent::Registered(registered) = event;
        self.email = Some(registered.email.clone());
    }
}

/// A read model of email addresses.
struct Addresses(Keyring);

#[async_trait]
impl EventHandler<PgTx> for Addresses {
    type Error = HandlerError;

    fn name(&self) -> &'static str {
        "addresses"
    }

    fn aggregates(&self) -> &'static [&'static str] {
        &["person"]
    }

    async fn handle(&self, tx: &mut PgTx, events: &Batch) -> Result<(), HandlerError> {
        for event in events {
            let PersonEvent::Registered(registered) = event.decode()?;
            let email = self.0.open(&registered.email).await.map_err(HandlerError::refused)?;
            sqlx::query("insert into addresses values ($1, $2) on conflict (id) do update set email = $2")
                .bind(event.aggregate_id)
                .bind(email.value().unwrap_or_else(|| "forgotten".to_owned()))
                .execute(tx.connection())
                .await?;
        }
        Ok(())
    }
}

async fn rebuild(store: &PgStore, keyring: &Keyring) -> Vec<String> {
    let pool = store.pool();
    let fresh = "drop table if exists addresses; create table addresses (id uuid primary key, email text not null); \
         delete from cursors";
    sqlx::raw_sql(fresh).execute(pool).await.unwrap();
    let handler = Arc::new(Addresses(keyring.clone()));
    let subscription = PgSubscription::new(handler, store.clone(), Progress::new(pool.clone()));
    replay(store, &subscription, Position::START).await.unwrap();
    let rows = sqlx::query("select email from addresses order by id").fetch_all(pool).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// Returns the rows of the log as bytes.
async fn raw_log(pool: &PgPool) -> Vec<Vec<u8>> {
    let query = "select convert_to(e::text, 'UTF8') || '|' || payload from events e order by position";
    sqlx::query(query).fetch_all(pool).await.unwrap().iter().map(|row| row.get(0)).collect()
}

fn contains(rows: &[Vec<u8>], text: &str) -> bool {
    rows.iter().any(|row| row.windows(text.len()).any(|window| window == text.as_bytes()))
}

fn masters() -> MasterKeys {
    MasterKeys::new(MasterKey::new(1, [7; 32]), [])
}

fn keyring(pool: &PgPool) -> Keyring {
    Keyring::new(Arc::new(PgKeyStore::new(pool.clone())), masters())
}

#[tokio::test(flavor = "multi_thread")]
async fn forgotten_subject_is_unreadable_in_the_log() {
    let database = TestDatabase::create().await;
    let pool = database.epoch().await;
    let (store, appender) = PgStore::new(pool.clone(), FastPath::new());
    tokio::spawn(appender.run());
    let people = Repository::<Person, _>::new(store.clone());
    let ring = keyring(&pool);
    let (ada, bob) = (Uuid::from_u128(1), Uuid::from_u128(2));
    for (person, email) in [(ada, SECRET), (bob, "bob@example.org")] {
        let email = ring.seal(person, &email.to_owned()).await.unwrap();
        let command = Registered { email, town: "Marylebone".into() };
        people.execute(person, &command, &CommandContext::new()).await.unwrap();
    }
    let before = raw_log(&pool).await;
    assert!(contains(&before, "Marylebone"), "the search finds unsealed text");
    assert!(!contains(&before, SECRET) && !contains(&before, "lovelace"));
    assert_eq!(rebuild(&store, &ring).await, [SECRET, "bob@example.org"]);
    let folded = people.load(ada).await.unwrap();

    ring.forget(ada).await.unwrap();

    assert_eq!(raw_log(&pool).await, before, "the log is unchanged");
    // Another process with the master key and an empty cache, reading the bytes of a bus message.
    let other = keyring(&pool);
    let events: Vec<_> = store.stream("person", ada, epoch::Version::ZERO).try_collect().await.unwrap();
    let message = Message::of(&events[0], "test");
    assert!(!contains(&[message.body.to_vec()], SECRET));
    let PersonEvent::Registered(registered) = events[0].decode().unwrap();
    assert_eq!(other.open(&registered.email).await.unwrap(), Opened::Forgotten);
    let gone: i64 = sqlx::query_scalar(
        "select count(*) from subject_keys where subject = $1 and wrapped is null and master is null",
    )
    .bind(ada)
    .fetch_one(&pool)
    .await
    .unwrap();
    assert_eq!(gone, 1, "no wrapped key remains");
    assert_eq!(rebuild(&store, &other).await, ["forgotten", "bob@example.org"]);
    let fresh = Repository::<Person, _>::new(store.clone()).with_cache(0).load(ada).await.unwrap();
    assert_eq!(
        (&*fresh.state, fresh.version),
        (&*folded.state, folded.version),
        "the aggregate folds to the same state"
    );
    assert!(matches!(other.seal(ada, &String::new()).await, Err(KeyringError::Forgotten { .. })));
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_first_keys_agree_and_respect_forget() {
    let database = TestDatabase::create().await;
    let pool = database.epoch().await;
    let store = PgKeyStore::new(pool.clone());
    for round in 0..20_u128 {
        let person = Uuid::from_u128(round + 1);
        let rings: Vec<Keyring> = (0..6).map(|_| keyring(&pool)).collect();
        let sealing = rings.iter().map(|ring| ring.seal(person, &7_i64));
        let forgetting = async {
            if round % 2 == 1 {
                rings[0].forget(person).await.unwrap()
            }
        };
        let (sealed, ()) = tokio::join!(futures::future::join_all(sealing), forgetting);
        let fresh = keyring(&pool);
        for sealed in sealed {
            match sealed {
                Ok(sealed) if round % 2 == 0 => assert_eq!(fresh.open(&sealed).await.unwrap(), Opened::Value(7)),
                Ok(sealed) => assert_eq!(fresh.open(&sealed).await.unwrap(), Opened::Forgotten),
                Err(error) => assert!(matches!(error, KeyringError::Forgotten { .. }) && round % 2 == 1, "{error}"),
            }
        }
        let forgotten = matches!(store.of_subject(person).await.unwrap(), Some(SubjectKey::Forgotten { .. }));
        assert_eq!(forgotten, round % 2 == 1);
    }
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn master_key_is_replaced_concurrently() {
    let database = TestDatabase::create().await;
    let pool = database.epoch().await;
    let ring = keyring(&pool);
    let mut sealed = Vec::new();
    for person in 1..=600_u128 {
        sealed.push(ring.seal(Uuid::from_u128(person), &person.to_string()).await.unwrap());
    }
    ring.forget(Uuid::from_u128(1)).await.unwrap();
    let store: Arc<dyn KeyStore> = Arc::new(PgKeyStore::new(pool.clone()));
    let both = MasterKeys::new(MasterKey::new(2, [9; 32]), [MasterKey::new(1, [7; 32])]);
    // Two processes at once: each key is rewrapped by one of them.
    let (one, two) = (Keyring::new(Arc::clone(&store), both.clone()), Keyring::new(Arc::clone(&store), both));
    let (a, b) = tokio::join!(one.rewrap(), two.rewrap());
    assert_eq!(a.unwrap() + b.unwrap(), 599);
    let new = Keyring::new(store, MasterKeys::new(MasterKey::new(2, [9; 32]), []));
    assert_eq!(new.open(&sealed[0]).await.unwrap(), Opened::Forgotten);
    assert_eq!(new.open(&sealed[599]).await.unwrap(), Opened::Value("600".to_owned()));
    database.drop().await;
}

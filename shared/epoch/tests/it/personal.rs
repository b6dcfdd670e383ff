//! Sealing, opening and forgetting.

use std::{str::FromStr, sync::Arc, time::Duration};

use bytes::Bytes;
use epoch::{
    DomainEvent, Timestamp,
    personal::{
        KeyStore, Keyring, KeyringError, MAX_BYTES, MasterKey, MasterKeys, MemoryKeyStore, Opened, Sealed, SubjectKey,
    },
};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Registered {
    person: Uuid,
    email: Sealed<String>,
}

const REGISTERED: &str = r#"{"type": "record", "name": "Registered", "fields": [
    {"name": "person", "type": {"type": "string", "logicalType": "uuid"}}, {"name": "email", "type": "bytes"}]}"#;

epoch::events! { enum PersonEvent { Registered = [REGISTERED] } }

fn masters() -> MasterKeys {
    MasterKeys::new(MasterKey::new(1, [7; 32]), [])
}

fn keyring(store: &Arc<MemoryKeyStore>) -> Keyring {
    Keyring::new(Arc::clone(store) as Arc<dyn KeyStore>, masters())
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test]
async fn sealed_field_round_trips_as_avro_bytes() {
    let keyring = keyring(&Arc::default());
    let person = Uuid::now_v7();
    let email = keyring.seal(person, &"ada@example.org".to_owned()).await.unwrap();
    let event = PersonEvent::from(Registered { person, email });
    let encoded = event.encode().unwrap();
    assert!(!contains(&encoded.payload, "ada@example.org"));
    let PersonEvent::Registered(read) = PersonEvent::decode("Registered", encoded.schema, &encoded.payload).unwrap();
    assert_eq!(PersonEvent::from(read.clone()), event);
    assert_eq!(keyring.open(&read.email).await.unwrap(), Opened::Value("ada@example.org".to_owned()));
    // Snapshots store states as JSON.
    let json = serde_json::to_string(&read).unwrap();
    assert_eq!(serde_json::from_str::<Registered>(&json).unwrap(), read);
    assert_eq!(read.email.as_bytes().len(), "\"ada@example.org\"".len() + 57, "documented length");
}

#[tokio::test]
async fn forget_is_permanent_and_limited_to_one_subject() {
    let store = Arc::<MemoryKeyStore>::default();
    let keyring = keyring(&store);
    let (ada, bob) = (Uuid::now_v7(), Uuid::now_v7());
    let of_ada = keyring.seal(ada, &1_i64).await.unwrap();
    let of_bob = keyring.seal(bob, &2_i64).await.unwrap();
    keyring.forget(ada).await.unwrap();
    keyring.forget(ada).await.unwrap();
    assert_eq!(keyring.open(&of_ada).await.unwrap(), Opened::Forgotten);
    assert_eq!(keyring.open(&of_bob).await.unwrap(), Opened::Value(2));
    let again = keyring.seal(ada, &3_i64).await;
    assert!(matches!(again, Err(KeyringError::Forgotten { subject }) if subject == ada), "{again:?}");
    // A subject that never had a key can be forgotten too.
    let eve = Uuid::now_v7();
    keyring.forget(eve).await.unwrap();
    assert!(matches!(keyring.seal(eve, &4_i64).await, Err(KeyringError::Forgotten { .. })));
}

#[tokio::test]
async fn other_process_forgets_when_its_cached_key_expires() {
    let store = Arc::<MemoryKeyStore>::default();
    let (here, there) = (keyring(&store), keyring(&store).with_time_to_live(Duration::from_millis(50)));
    let ada = Uuid::now_v7();
    let sealed = here.seal(ada, &1_i64).await.unwrap();
    assert_eq!(there.open(&sealed).await.unwrap(), Opened::Value(1));
    here.forget(ada).await.unwrap();
    let start = std::time::Instant::now();
    while there.open(&sealed).await.unwrap() != Opened::Forgotten {
        assert!(start.elapsed() < Duration::from_secs(10), "still readable");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn rewrap_makes_the_old_master_key_removable() {
    let store = Arc::<MemoryKeyStore>::default();
    let before = keyring(&store);
    let people: Vec<Uuid> = (0..1_200).map(|_| Uuid::now_v7()).collect();
    let mut sealed = Vec::new();
    for person in &people {
        sealed.push(before.seal(*person, &person.to_string()).await.unwrap());
    }
    let new = MasterKey::from_str(&format!("2:{}", "0f".repeat(32))).unwrap();
    let alone = Keyring::new(Arc::clone(&store) as Arc<dyn KeyStore>, MasterKeys::new(new.clone(), []));
    let unknown = alone.open(&sealed[0]).await;
    assert!(matches!(unknown, Err(KeyringError::UnknownMaster { master: 1, .. })), "{unknown:?}");
    let both = MasterKeys::new(new, [MasterKey::new(1, [7; 32])]);
    let rewrapped = Keyring::new(Arc::clone(&store) as Arc<dyn KeyStore>, both).rewrap().await.unwrap();
    assert_eq!(rewrapped, 1_200);
    for (person, sealed) in people.iter().zip(&sealed) {
        assert_eq!(alone.open(sealed).await.unwrap(), Opened::Value(person.to_string()));
    }
}

#[tokio::test]
async fn invalid_bytes_and_wrong_keys_are_errors() {
    let store = Arc::<MemoryKeyStore>::default();
    let keyring = keyring(&store);
    let sealed = keyring.seal(Uuid::now_v7(), &"text".to_owned()).await.unwrap();
    let wrong = MasterKeys::new(MasterKey::new(1, [8; 32]), []);
    let wrong = Keyring::new(Arc::clone(&store) as Arc<dyn KeyStore>, wrong);
    assert!(matches!(wrong.open(&sealed).await, Err(KeyringError::Damaged { .. })));
    let other_store = self::keyring(&Arc::default());
    assert!(matches!(other_store.open(&sealed).await, Err(KeyringError::UnknownKey { .. })));
    let as_number = Sealed::<i64>::from_bytes(Bytes::copy_from_slice(sealed.as_bytes()));
    let error = keyring.open(&as_number).await.unwrap_err();
    assert!(!error.to_string().contains("text"), "{error}");
    let long = keyring.seal(Uuid::now_v7(), &"x".repeat(MAX_BYTES)).await;
    assert!(matches!(long, Err(KeyringError::Value { .. })));
    for bad in ["", "1:", "1:00", "x:00", &format!("1:{}é", "0".repeat(62)), &format!("1:{}", "g".repeat(64))] {
        assert!(MasterKey::from_str(bad).is_err(), "{bad}");
    }
}

#[tokio::test]
async fn exchanged_keys_are_detected() {
    let store = Arc::<MemoryKeyStore>::default();
    let ring = keyring(&store);
    let (ada, bob) = (Uuid::now_v7(), Uuid::now_v7());
    let sealed = ring.seal(ada, &1_i64).await.unwrap();
    ring.seal(bob, &2_i64).await.unwrap();
    let Some(SubjectKey::Present(of_ada)) = store.of_subject(ada).await.unwrap() else { panic!("no key") };
    let Some(SubjectKey::Present(of_bob)) = store.of_subject(bob).await.unwrap() else { panic!("no key") };
    // An attacker with write access to the table stores Bob's wrapped key as Ada's.
    let exchanged = epoch::personal::WrappedKey { wrapped: of_bob.wrapped, ..of_ada.clone() };
    assert!(store.rewrap(&of_ada, &exchanged).await.unwrap());
    assert!(matches!(keyring(&store).open(&sealed).await, Err(KeyringError::Damaged { .. })));
}

#[tokio::test]
async fn first_key_wins_and_first_tombstone_stays() {
    let store = Arc::<MemoryKeyStore>::default();
    let (one, two) = (keyring(&store), keyring(&store));
    let ada = Uuid::now_v7();
    let (a, b) = tokio::join!(one.seal(ada, &1_i64), two.seal(ada, &2_i64));
    assert_eq!(two.open(&a.unwrap()).await.unwrap(), Opened::Value(1));
    assert_eq!(one.open(&b.unwrap()).await.unwrap(), Opened::Value(2));
    store.forget(ada, Timestamp::from_millis(5)).await.unwrap();
    store.forget(ada, Timestamp::from_millis(9)).await.unwrap();
    let at = Timestamp::from_millis(5);
    assert_eq!(store.of_subject(ada).await.unwrap(), Some(SubjectKey::Forgotten { at }));
}

proptest! {
    #[test]
    fn every_altered_bit_is_detected(at in 0_usize..65, bit in 0_u8..8, text in "[a-z]{6}") {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let keyring = keyring(&Arc::default());
            let sealed = keyring.seal(Uuid::now_v7(), &text).await.unwrap();
            let mut bytes = sealed.as_bytes().to_vec();
            prop_assert_eq!(bytes.len(), 65);
            bytes[at] ^= 1 << bit;
            prop_assert!(keyring.open(&Sealed::<String>::from_bytes(bytes.into())).await.is_err());
            Ok(())
        })?;
    }

    #[test]
    fn arbitrary_bytes_are_an_error(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let opened = runtime.block_on(keyring(&Arc::default()).open(&Sealed::<String>::from_bytes(bytes.into())));
        prop_assert!(opened.is_err());
    }
}

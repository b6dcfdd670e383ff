//! Erasure of personal data from topics that are never changed.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use epoch::{
    DomainEvent,
    bus::Bus,
    envelope::Envelope,
    personal::{Keyring, MasterKey, MasterKeys, MemoryKeyStore, Opened},
};
use epoch_kafka::KafkaConfig;
use rdkafka::{Message, message::Headers};
use uuid::Uuid;

use crate::{
    person_event::{PersonEvent, Registered, SECRET},
    support::*,
};

/// The raw content of a record.
struct Record {
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

impl Record {
    fn contains(&self, text: &str) -> bool {
        let headers = self.headers.iter().map(|(_, value)| value);
        headers.chain([&self.body]).any(|bytes| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
    }

    fn read(&self) -> PersonEvent {
        let header = |name: &str| {
            let header = self.headers.iter().find(|(header, _)| header == name);
            header.and_then(|(_, value)| std::str::from_utf8(value).ok())
        };
        let envelope = epoch::message::Message::read(header, &self.body.clone().into()).unwrap();
        envelope.decode().unwrap()
    }
}

fn first_record(config: &KafkaConfig, topic: &str) -> Record {
    let consumer = read_from_start(config, topic);
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < LIMIT, "nothing on {topic}");
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else { continue };
        let headers = message.headers().unwrap().iter();
        let headers = headers.map(|header| (header.key.to_owned(), header.value.unwrap_or_default().to_vec()));
        return Record { headers: headers.collect(), body: message.payload().unwrap().to_vec() };
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sealed_data_on_a_topic_is_unreadable_after_forget() {
    let (config, person) = (config(), Uuid::now_v7());
    let bus = bus_with(&config, &["person"]).await;
    let store = Arc::new(MemoryKeyStore::new());
    let masters = || MasterKeys::new(MasterKey::new(1, [7; 32]), []);
    let keyring = Keyring::new(Arc::clone(&store) as _, masters());
    let email = keyring.seal(person, &SECRET.to_owned()).await.unwrap();
    let registered = PersonEvent::from(Registered { email, town: "Marylebone".into() });
    let encoded = registered.encode().unwrap();
    let envelope = Envelope {
        event_name: "Registered".into(),
        schema: encoded.schema,
        payload: encoded.payload,
        ..Envelope::clone(&event("person", person, 1))
    };
    bus.publish(&[Arc::new(envelope)]).await.unwrap();

    let topic = topic(&config, "person");
    let record = first_record(&config, &topic);
    assert!(record.contains("Marylebone"), "unsealed data is readable");
    assert!(!record.contains(SECRET) && !record.contains("lovelace"));
    let PersonEvent::Registered(read) = record.read();
    assert_eq!(keyring.open(&read.email).await.unwrap(), Opened::Value(SECRET.to_owned()));

    keyring.forget(person).await.unwrap();

    let later = first_record(&config, &topic);
    assert_eq!(later.body, record.body, "the topic is unchanged");
    let PersonEvent::Registered(read) = later.read();
    // A new process with the master key and an empty cache cannot open it either.
    let other = Keyring::new(store, masters());
    for keyring in [&keyring, &other] {
        assert_eq!(keyring.open(&read.email).await.unwrap(), Opened::Forgotten);
    }
}

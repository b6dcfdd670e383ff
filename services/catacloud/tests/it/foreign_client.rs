//! Reads the published events with kcat, a Kafka client independent of our code.

use std::{collections::HashMap, process::Command};

use serde_json::Value;

struct Message {
    partition: u32,
    key: String,
    headers: HashMap<String, String>,
}

/// Reads a topic to its end.
fn consume(kafka: &str, topic: &str) -> Vec<Message> {
    let output = Command::new("kcat").args(["-b", kafka, "-C", "-t", topic, "-e", "-q", "-J"]).output();
    let output = output.expect("kcat is not installed");
    assert!(output.status.success(), "kcat: {}", String::from_utf8_lossy(&output.stderr));
    // The payload is binary and not always valid UTF-8.
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .map(|line| {
            let message: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            let flat: Vec<&str> = message["headers"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
            let headers = flat.chunks(2).map(|pair| (pair[0].to_owned(), pair[1].to_owned())).collect();
            let partition = u32::try_from(message["partition"].as_u64().unwrap()).unwrap();
            Message { partition, key: message["key"].as_str().unwrap().to_owned(), headers }
        })
        .collect()
}

/// Hashes a key like the Java client: `org.apache.kafka.common.utils.Utils.murmur2` of Apache Kafka. The test
/// [`murmur2_equals_the_published_vectors`] repeats its published test vectors.
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ u32::try_from(data.len()).unwrap();
    let mut chunks = data.chunks_exact(4);
    for chunk in &mut chunks {
        let mut k = u32::from_le_bytes(chunk.try_into().unwrap()).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        for (index, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[test]
fn murmur2_equals_the_published_vectors() {
    let known = [
        ("21", -973_932_308),
        ("foobar", -790_332_482),
        ("abc", 479_470_107),
        ("a-little-bit-long-string", -985_981_536),
    ];
    for (text, hash) in known {
        assert_eq!(murmur2(text.as_bytes()).cast_signed(), hash, "{text}");
    }
}

/// Checks keys, headers, order and partitions of all published events.
pub(crate) fn assert_topics(kafka: &str, namespace: &str) {
    const PARTITIONS: u32 = 3;
    let mut events = 0;
    for aggregate in ["organization", "job_configuration", "file", "job"] {
        let mut versions: HashMap<String, u64> = HashMap::new();
        for Message { partition, key, headers } in consume(kafka, &format!("{namespace}.{aggregate}.v1")) {
            events += 1;
            let id: uuid::Uuid = key.parse().unwrap();
            assert_eq!(key, id.to_string(), "lowercase hyphenated text");
            assert_eq!(partition, (murmur2(key.as_bytes()) & 0x7fff_ffff) % PARTITIONS, "partition of {key}");
            assert_eq!(
                (headers["ce_subject"].as_str(), headers["ce_partitionkey"].as_str()),
                (key.as_str(), key.as_str())
            );
            assert_eq!(headers["ce_specversion"], "1.0");
            assert!(headers["ce_type"].starts_with(&format!("{namespace}.{aggregate}.")), "{headers:?}");
            assert!(headers["ce_source"].contains(aggregate) && headers["ce_dataschema"].starts_with("urn:avro:"));
            assert!(headers["ce_id"].parse::<uuid::Uuid>().is_ok() && headers["ce_time"].ends_with('Z'));
            assert!(headers["correlation"].parse::<uuid::Uuid>().is_ok());
            assert!(headers["tenant"].parse::<uuid::Uuid>().is_ok(), "{headers:?}");
            assert!(headers["traceparent"].starts_with("00-"), "{headers:?}");
            let last = versions.entry(key).or_default();
            assert_eq!(headers["version"].parse::<u64>().unwrap(), *last + 1, "versions in order");
            *last += 1;
        }
    }
    assert!(events > 10, "{events} events");
}

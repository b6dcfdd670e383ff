//! Topics.
//!
//! The problem: a broker that creates topics by itself gives them one partition and forgets their records after a week; a
//! subscriber that comes later would miss the beginning.
//!
//! The invariant: this crate never lets a broker create a topic by itself: before its first use in each process it looks for it,
//! and creates what is missing, with the configured partitions and kept for ever. A topic that exists is taken as it is.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    error::{KafkaError, RDKafkaErrorCode},
};

use crate::{client_log::Log, config::KafkaConfig, error::Error, health::lock};

pub(crate) struct Topics {
    admin: Arc<AdminClient<Log>>,
    partitions: i32,
    replication: i32,
    timeout: Duration,
    /// Those that needn't be asked for again.
    known: Mutex<HashSet<String>>,
}

impl Topics {
    pub(crate) fn new(config: &KafkaConfig) -> Result<Self, Error> {
        let admin = config
            .admin()
            .create_with_context(Log { client: "admin".to_owned() })
            .map_err(|source| Error::Settings { source })?;
        let (partitions, replication) = (config.partitions, config.replication);
        let admin = Arc::new(admin);
        Ok(Self { admin, partitions, replication, timeout: config.delivery_timeout, known: Mutex::default() })
    }

    /// Creates those that this process hasn't seen yet.
    pub(crate) async fn ensure(&self, topics: impl IntoIterator<Item = String>) -> Result<(), Error> {
        let wanted: Vec<String> = {
            let known = lock(&self.known);
            topics.into_iter().filter(|topic| !known.contains(topic)).collect()
        };
        if wanted.is_empty() {
            return Ok(());
        }
        let existing = self.existing().await?;
        let missing: Vec<_> = wanted.iter().filter(|topic| !existing.contains(*topic)).collect();
        match self.create(&missing).await {
            Ok(()) => {}
            // Where we may not create topics, somebody else does it, and knows how long to keep them.
            Err(error) if not_for_us(&error) => {
                tracing::warn!(?missing, %error, "topics are left to the broker's administrator");
            }
            Err(error) => return Err(error),
        }
        lock(&self.known).extend(wanted);
        Ok(())
    }

    async fn existing(&self) -> Result<HashSet<String>, Error> {
        let (admin, timeout) = (Arc::clone(&self.admin), self.timeout);
        // Of all topics: when asked for one that is missing, a broker may create it.
        let fetch = move || admin.inner().fetch_metadata(None, timeout);
        let metadata = tokio::task::spawn_blocking(fetch).await.unwrap_or(Err(KafkaError::Canceled));
        let metadata = metadata.map_err(|source| Error::Admin { source })?;
        Ok(metadata.topics().iter().map(|topic| topic.name().to_owned()).collect())
    }

    async fn create(&self, topics: &[&String]) -> Result<(), Error> {
        if topics.is_empty() {
            return Ok(());
        }
        let new = topics.iter().map(|topic| {
            NewTopic::new(topic, self.partitions, TopicReplication::Fixed(self.replication))
                .set("retention.ms", "-1")
                .set("cleanup.policy", "delete")
        });
        let limit = Some(self.timeout);
        let options = AdminOptions::new().request_timeout(limit).operation_timeout(limit);
        let results = self.admin.create_topics(&new.collect::<Vec<_>>(), &options).await;
        for result in results.map_err(|source| Error::Admin { source })? {
            match result {
                Ok(topic) => tracing::info!(topic, partitions = self.partitions, "topic created"),
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, source)) => return Err(Error::Topic { topic, source }),
            }
        }
        Ok(())
    }
}

fn not_for_us(error: &Error) -> bool {
    use RDKafkaErrorCode::{ClusterAuthorizationFailed, TopicAuthorizationFailed, UnsupportedFeature};
    match error {
        Error::Topic { source, .. } | Error::Admin { source: KafkaError::AdminOp(source) } => {
            matches!(source, ClusterAuthorizationFailed | TopicAuthorizationFailed | UnsupportedFeature)
        }
        _ => false,
    }
}

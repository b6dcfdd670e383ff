//! Creation of topics.
//!
//! A broker's automatic topic creation gives one partition and deletes records after a week, so a new subscription would miss the
//! oldest events. Before the first use of a topic, this crate creates it with the configured partitions and unlimited retention.
//! Existing topics are not changed.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    error::{KafkaError, RDKafkaErrorCode},
};

use crate::{client_log::ClientLog, config::KafkaConfig, error::Error, lock::lock};

pub(crate) struct Topics {
    admin: Arc<AdminClient<ClientLog>>,
    partitions: i32,
    replication: i32,
    timeout: Duration,
    /// Topics that this process has seen or created.
    known: Mutex<HashSet<String>>,
}

impl Topics {
    pub(crate) fn new(config: &KafkaConfig) -> Result<Self, Error> {
        let admin = config
            .admin()
            .create_with_context(ClientLog { client: "admin".to_owned() })
            .map_err(|source| Error::Settings { source })?;
        let (partitions, replication) = (config.partitions, config.replication);
        let admin = Arc::new(admin);
        Ok(Self { admin, partitions, replication, timeout: config.delivery_timeout, known: Mutex::default() })
    }

    /// Creates the topics that are missing, and caches that they exist.
    pub(crate) async fn ensure(&self, topics: impl IntoIterator<Item = String>) -> Result<(), Error> {
        let unknown: Vec<String> = {
            let known = lock(&self.known);
            topics.into_iter().filter(|topic| !known.contains(topic)).collect()
        };
        if unknown.is_empty() {
            return Ok(());
        }
        let existing = self.existing().await?;
        let missing: Vec<_> = unknown.iter().filter(|topic| !existing.contains(*topic)).collect();
        match self.create(&missing).await {
            Ok(()) => {}
            // Without the permission, the broker's administrator creates topics and sets their retention.
            Err(error) if is_unauthorized(&error) => {
                tracing::warn!(?missing, %error, "not authorized to create topics; the administrator must create them");
            }
            Err(error) => return Err(error),
        }
        lock(&self.known).extend(unknown);
        Ok(())
    }

    async fn existing(&self) -> Result<HashSet<String>, Error> {
        let (admin, timeout) = (Arc::clone(&self.admin), self.timeout);
        // Requests all topics: a request for a single missing topic may make the broker create it.
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

fn is_unauthorized(error: &Error) -> bool {
    use RDKafkaErrorCode::{ClusterAuthorizationFailed, TopicAuthorizationFailed, UnsupportedFeature};
    match error {
        Error::Topic { source, .. } | Error::Admin { source: KafkaError::AdminOp(source) } => {
            matches!(source, ClusterAuthorizationFailed | TopicAuthorizationFailed | UnsupportedFeature)
        }
        _ => false,
    }
}

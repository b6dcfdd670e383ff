//! Job configurations, as people look at them.
//!
//! The problem: configurations are listed and read far more often than they change. The invariant: a row is what the
//! configuration's events up to its `version` say.

use async_trait::async_trait;
use contracts::job_configuration::{
    AGGREGATE, JobConfigurationDefined, JobConfigurationEvent, JobConfigurationRevised,
};
use epoch::{Batch, handler::EventHandler};
use epoch_postgres::{HandlerError, PgTx, version_number};
use sqlx::{FromRow, PgExecutor, types::Json};
use uuid::Uuid;

/// The subscription's name.
pub(crate) const NAME: &str = "job_configurations";

const DEFINED: &str = include_str!("sql/insert_job_configuration.sql");
const REVISED: &str = include_str!("sql/revise_job_configuration.sql");
const RETIRED: &str = include_str!("sql/retire_job_configuration.sql");
const ONE: &str = include_str!("sql/find_job_configuration.sql");
const PAGE: &str = include_str!("sql/list_job_configurations.sql");

/// The projection.
pub(crate) struct JobConfigurations;

#[async_trait]
impl EventHandler<PgTx> for JobConfigurations {
    type Error = HandlerError;

    fn name(&self) -> &'static str {
        NAME
    }

    fn aggregates(&self) -> &'static [&'static str] {
        &[AGGREGATE]
    }

    fn tables(&self) -> &'static [&'static str] {
        &["job_configurations"]
    }

    async fn handle(&self, tx: &mut PgTx, events: &Batch) -> Result<(), HandlerError> {
        // They change rarely, so one statement an event will do.
        for event in events {
            let (id, at, version) = (event.aggregate_id, event.occurred_at.as_millis(), version_number(event.version));
            let query = match event.decode()? {
                JobConfigurationEvent::JobConfigurationDefined(event) => {
                    let JobConfigurationDefined { organization_id, name, command, timeout_ms } = event;
                    let query = sqlx::query(DEFINED).bind(id).bind(at).bind(version);
                    query.bind(name).bind(Json(command)).bind(timeout_ms).bind(organization_id)
                }
                JobConfigurationEvent::JobConfigurationRevised(event) => {
                    let JobConfigurationRevised { name, command, timeout_ms, .. } = event;
                    let query = sqlx::query(REVISED).bind(id).bind(at).bind(version);
                    query.bind(name).bind(Json(command)).bind(timeout_ms)
                }
                JobConfigurationEvent::JobConfigurationRetired(_) => {
                    sqlx::query(RETIRED).bind(id).bind(at).bind(version)
                }
            };
            query.execute(tx.connection()).await?;
        }
        Ok(())
    }
}

/// A configuration.
#[derive(Debug, FromRow)]
pub(crate) struct JobConfigurationRow {
    pub(crate) id: Uuid,
    pub(crate) name: String,
    #[sqlx(json)]
    pub(crate) command: Vec<String>,
    pub(crate) timeout_ms: i64,
    pub(crate) retired: bool,
    pub(crate) created_at: i64,
    pub(crate) updated_at: i64,
    pub(crate) version: i64,
}

/// One of an organization's configurations.
pub(crate) async fn one(
    executor: impl PgExecutor<'_>,
    organization: Uuid,
    id: Uuid,
) -> Result<Option<JobConfigurationRow>, sqlx::Error> {
    sqlx::query_as(ONE).bind(organization).bind(id).fetch_optional(executor).await
}

/// Up to `limit` of an organization's configurations, newest first, that are older than `after`.
pub(crate) async fn page(
    executor: impl PgExecutor<'_>,
    organization: Uuid,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<JobConfigurationRow>, sqlx::Error> {
    let after = after.unwrap_or(Uuid::max());
    sqlx::query_as(PAGE).bind(organization).bind(after).bind(limit).fetch_all(executor).await
}

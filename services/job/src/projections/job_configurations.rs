//! Read model of job configurations.

use async_trait::async_trait;
use contracts::job_configuration::{
    AGGREGATE, JobConfigurationDefined, JobConfigurationEvent, JobConfigurationRevised,
};
use epoch::Batch;
use epoch_postgres::{HandlerError, PgTx, Projection, version_number};
use sqlx::{FromRow, PgExecutor, types::Json};
use uuid::Uuid;

const INSERT: &str = include_str!("sql/insert_job_configuration.sql");
const REVISE: &str = include_str!("sql/revise_job_configuration.sql");
const RETIRE: &str = include_str!("sql/retire_job_configuration.sql");
const FIND: &str = include_str!("sql/find_job_configuration.sql");
const LIST: &str = include_str!("sql/list_job_configurations.sql");

/// Maintains the table `job_configurations`.
pub(crate) struct JobConfigurations;

#[async_trait]
impl Projection for JobConfigurations {
    const NAME: &'static str = "job_configurations";
    const AGGREGATES: &'static [&'static str] = &[AGGREGATE];
    const TABLES: &'static [&'static str] = &["job_configurations"];

    async fn apply(&self, tx: &mut PgTx, events: &Batch) -> Result<(), HandlerError> {
        // Configurations change rarely, so one statement per event is fast enough.
        for event in events {
            let (id, at, version) = (event.aggregate_id, event.occurred_at.as_millis(), version_number(event.version));
            let query = match event.decode()? {
                JobConfigurationEvent::JobConfigurationDefined(event) => {
                    let JobConfigurationDefined { organization_id, name, command, timeout_ms } = event;
                    let query = sqlx::query(INSERT).bind(id).bind(at).bind(version);
                    query.bind(name).bind(Json(command)).bind(timeout_ms).bind(organization_id)
                }
                JobConfigurationEvent::JobConfigurationRevised(event) => {
                    let JobConfigurationRevised { name, command, timeout_ms, .. } = event;
                    let query = sqlx::query(REVISE).bind(id).bind(at).bind(version);
                    query.bind(name).bind(Json(command)).bind(timeout_ms)
                }
                JobConfigurationEvent::JobConfigurationRetired(_) => {
                    sqlx::query(RETIRE).bind(id).bind(at).bind(version)
                }
            };
            query.execute(tx.connection()).await?;
        }
        Ok(())
    }
}

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

/// Returns a configuration of the organization.
pub(crate) async fn find(
    executor: impl PgExecutor<'_>,
    organization: Uuid,
    id: Uuid,
) -> Result<Option<JobConfigurationRow>, sqlx::Error> {
    sqlx::query_as(FIND).bind(organization).bind(id).fetch_optional(executor).await
}

/// Returns up to `limit` configurations of the organization that are older than `after`, newest first.
pub(crate) async fn list(
    executor: impl PgExecutor<'_>,
    organization: Uuid,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<JobConfigurationRow>, sqlx::Error> {
    let after = after.unwrap_or(Uuid::max());
    sqlx::query_as(LIST).bind(organization).bind(after).bind(limit).fetch_all(executor).await
}

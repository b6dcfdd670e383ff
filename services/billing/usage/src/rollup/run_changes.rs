//! Level changes of running jobs, to be added to the rollups.

use rating::metering::level::LevelChange;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::rollup::scope::Scope;

/// Level changes to add to the table `metering_run_sums`, in columns.
#[derive(Debug, Default)]
pub(crate) struct RunChanges {
    organizations: Vec<Uuid>,
    scopes: Vec<i16>,
    subjects: Vec<Uuid>,
    instants: Vec<i64>,
    deltas: Vec<i64>,
}

impl RunChanges {
    /// Adds a change of a subject's level; `None` is the organization, or runs without such a subject.
    pub(crate) fn push(&mut self, organization: Uuid, scope: Scope, subject: Option<Uuid>, change: LevelChange) {
        self.organizations.push(organization);
        self.scopes.push(scope.numbers().1);
        self.subjects.push(subject.unwrap_or_default());
        self.instants.push(change.at.as_millis());
        self.deltas.push(change.delta);
    }

    pub(crate) async fn write(self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        if self.instants.is_empty() {
            return Ok(());
        }
        sqlx::query("select metering_run_sums_add($1, $2, $3, $4, $5)")
            .bind(self.organizations)
            .bind(self.scopes)
            .bind(self.subjects)
            .bind(self.instants)
            .bind(self.deltas)
            .execute(connection)
            .await?;
        Ok(())
    }
}

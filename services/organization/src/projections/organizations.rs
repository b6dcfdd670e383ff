//! The projection `organizations`: one row per organization and one row per member.
//!
//! A batch has up to hundreds of events, most of them storage changes. The projection therefore folds a batch in memory
//! and writes it with four statements at most. The result equals writing the events one by one.

use std::collections::BTreeMap;

use async_trait::async_trait;
use contracts::organization::{AGGREGATE, OrganizationEvent};
use epoch::Batch;
use epoch_postgres::{HandlerError, PgTx, Projection, version_number};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::domain::MemberRole;

const INSERT_ORGANIZATIONS: &str = include_str!("insert_organizations.sql");
const UPDATE_ORGANIZATIONS: &str = include_str!("update_organizations.sql");
const UPSERT_MEMBERS: &str = include_str!("upsert_members.sql");
const DELETE_MEMBERS: &str = include_str!("delete_members.sql");

/// Maintains the tables `organizations` and `members`.
pub struct Organizations;

/// Changes of one batch.
#[derive(Default)]
struct Changes {
    organizations: BTreeMap<Uuid, OrganizationChange>,
    /// Roles by organization and user; `None` removes the member.
    members: BTreeMap<(Uuid, Uuid), Option<MemberRole>>,
}

/// Changes of one organization row. `None` keeps the present value.
#[derive(Default)]
struct OrganizationChange {
    name: Option<String>,
    storage_bytes: Option<i64>,
    /// UTC milliseconds; set if the batch creates the organization.
    created_at: Option<i64>,
    version: i64,
}

impl Changes {
    fn fold(events: &Batch) -> Result<Self, HandlerError> {
        let mut changes = Self::default();
        for event in events {
            let id = event.aggregate_id;
            let row = changes.organizations.entry(id).or_default();
            row.version = version_number(event.version);
            match event.decode()? {
                OrganizationEvent::OrganizationCreated(created) => {
                    row.name = Some(created.name);
                    row.created_at = Some(event.occurred_at.as_millis());
                }
                OrganizationEvent::OrganizationRenamed(renamed) => row.name = Some(renamed.name),
                OrganizationEvent::StorageUsageChanged(changed) => row.storage_bytes = Some(changed.total_bytes),
                OrganizationEvent::MemberAdded(added) => {
                    changes.members.insert((id, added.user_id), Some(added.role.into()));
                }
                OrganizationEvent::MemberRoleChanged(changed) => {
                    changes.members.insert((id, changed.user_id), Some(changed.role.into()));
                }
                OrganizationEvent::MemberRemoved(removed) => {
                    changes.members.insert((id, removed.user_id), None);
                }
            }
        }
        Ok(changes)
    }

    async fn write_organizations(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let (mut ids, mut names, mut storage) = (Vec::new(), Vec::new(), Vec::new());
        let (mut created, mut versions) = (Vec::new(), Vec::new());
        for (id, row) in &self.organizations {
            ids.push(*id);
            names.push(row.name.as_deref());
            storage.push(row.storage_bytes);
            created.push(row.created_at);
            versions.push(row.version);
        }
        for statement in [INSERT_ORGANIZATIONS, UPDATE_ORGANIZATIONS] {
            sqlx::query(statement)
                .bind(&ids)
                .bind(&names)
                .bind(&storage)
                .bind(&created)
                .bind(&versions)
                .execute(&mut *connection)
                .await?;
        }
        Ok(())
    }

    async fn write_members(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        if self.members.is_empty() {
            return Ok(());
        }
        let (mut organizations, mut users, mut roles) = (Vec::new(), Vec::new(), Vec::new());
        for ((organization, user), role) in &self.members {
            organizations.push(*organization);
            users.push(*user);
            roles.push(role.map(MemberRole::as_str));
        }
        for statement in [UPSERT_MEMBERS, DELETE_MEMBERS] {
            sqlx::query(statement).bind(&organizations).bind(&users).bind(&roles).execute(&mut *connection).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Projection for Organizations {
    const NAME: &'static str = "organizations";
    const AGGREGATES: &'static [&'static str] = &[AGGREGATE];
    const TABLES: &'static [&'static str] = &["organizations", "members"];

    async fn apply(&self, tx: &mut PgTx, events: &Batch) -> Result<(), HandlerError> {
        let changes = Changes::fold(events)?;
        changes.write_organizations(tx.connection()).await?;
        changes.write_members(tx.connection()).await?;
        Ok(())
    }
}

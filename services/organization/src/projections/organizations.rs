//! The read model `organizations`: a row for each organization, and a row for each member.
//!
//! The problem: a batch may have hundreds of events, mostly of storage, and one statement for each would be slow.
//!
//! The invariant: a batch is folded in memory first, later events over earlier ones, and then written by a few statements,
//! however many events it has; the tables are as if the events had been written one by one.

use std::collections::BTreeMap;

use async_trait::async_trait;
use contracts::organization::{AGGREGATE, OrganizationEvent};
use epoch::{Batch, handler::EventHandler};
use epoch_postgres::{HandlerError, PgTx, version_number};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::domain::MemberRole;

const INSERT: &str = "insert into organizations (id, name, storage_bytes, created_at, version) \
     select id, name, coalesce(storage_bytes, 0), created_at, version \
     from unnest($1::uuid[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[]) \
     as k (id, name, storage_bytes, created_at, version) where created_at is not null";

const UPDATE: &str = "update organizations o set name = coalesce(k.name, o.name), \
     storage_bytes = coalesce(k.storage_bytes, o.storage_bytes), version = k.version \
     from unnest($1::uuid[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[]) \
     as k (id, name, storage_bytes, created_at, version) where o.id = k.id and k.created_at is null";

const PUT_MEMBERS: &str = "insert into members (organization_id, user_id, role) \
     select organization_id, user_id, role from unnest($1::uuid[], $2::uuid[], $3::text[]) \
     as k (organization_id, user_id, role) where role is not null \
     on conflict (organization_id, user_id) do update set role = excluded.role";

const REMOVE_MEMBERS: &str = "delete from members m using unnest($1::uuid[], $2::uuid[], $3::text[]) \
     as k (organization_id, user_id, role) \
     where m.organization_id = k.organization_id and m.user_id = k.user_id and k.role is null";

/// The read model `organizations`.
pub struct Organizations;

impl Organizations {
    /// The subscription's name.
    pub const NAME: &'static str = "organizations";
}

/// What a batch changes.
#[derive(Default)]
struct Changes {
    organizations: BTreeMap<Uuid, Row>,
    /// By organization and user; no role when the member is gone.
    members: BTreeMap<(Uuid, Uuid), Option<MemberRole>>,
}

/// What a batch changes about one organization; `None` is left as it is.
#[derive(Default)]
struct Row {
    name: Option<String>,
    storage_bytes: Option<i64>,
    /// Set when the batch creates it.
    created_at: Option<i64>,
    version: i64,
}

impl Changes {
    fn of(events: &Batch) -> Result<Self, HandlerError> {
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
        for statement in [INSERT, UPDATE] {
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
        for statement in [PUT_MEMBERS, REMOVE_MEMBERS] {
            sqlx::query(statement).bind(&organizations).bind(&users).bind(&roles).execute(&mut *connection).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl EventHandler<PgTx> for Organizations {
    type Error = HandlerError;

    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn aggregates(&self) -> &'static [&'static str] {
        &[AGGREGATE]
    }

    fn tables(&self) -> &'static [&'static str] {
        &["organizations", "members"]
    }

    async fn handle(&self, tx: &mut PgTx, events: &Batch) -> Result<(), HandlerError> {
        let changes = Changes::of(events)?;
        changes.write_organizations(tx.connection()).await?;
        changes.write_members(tx.connection()).await?;
        Ok(())
    }
}

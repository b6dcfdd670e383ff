//! Events of organizations: members, roles and stored bytes.
//!
//! A member is added, changed, then removed. `total_bytes` is the sum of all earlier `delta_bytes`.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The name of the aggregate.
pub const AGGREGATE: &str = "organization";

epoch::events! {
    /// An event of an organization.
    pub enum OrganizationEvent {
        OrganizationCreated = [schema!("organization/OrganizationCreated")],
        OrganizationRenamed = [schema!("organization/OrganizationRenamed")],
        MemberAdded = [schema!("organization/MemberAdded")],
        MemberRoleChanged = [schema!("organization/MemberRoleChanged")],
        MemberRemoved = [schema!("organization/MemberRemoved")],
        StorageUsageChanged = [schema!("organization/StorageUsageChanged")],
    }
}

/// Permissions of a member, from most to least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Role {
    /// Owns the organization and its members.
    Owner,
    /// Administers the organization on behalf of its owners.
    Admin,
    /// Creates and runs jobs, uploads files.
    Member,
    /// Reads jobs and files.
    Viewer,
}

/// An organization was created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrganizationCreated {
    pub name: String,
}

/// The organization was renamed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrganizationRenamed {
    pub name: String,
}

/// A member was added to the organization.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberAdded {
    pub user_id: Uuid,
    pub role: Role,
}

/// A member's role changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRoleChanged {
    pub user_id: Uuid,
    pub role: Role,
}

/// A member was removed from the organization.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRemoved {
    pub user_id: Uuid,
}

/// The organization's stored bytes changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageUsageChanged {
    /// Change in bytes; negative when storage was freed.
    pub delta_bytes: i64,
    /// Stored bytes after the change.
    pub total_bytes: i64,
}

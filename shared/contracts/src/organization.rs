//! What happens to an organization.
//!
//! The problem: who may do what, and how much an organization stores, is decided in one service and shown in others.
//!
//! The invariant: a member is added, then changed, then removed; `total_bytes` is the sum of all `delta_bytes` so far.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The aggregate's name.
pub const AGGREGATE: &str = "organization";

epoch::events! {
    /// What happens to an organization.
    pub enum OrganizationEvent {
        OrganizationCreated = [schema!("organization/OrganizationCreated")],
        OrganizationRenamed = [schema!("organization/OrganizationRenamed")],
        MemberAdded = [schema!("organization/MemberAdded")],
        MemberRoleChanged = [schema!("organization/MemberRoleChanged")],
        MemberRemoved = [schema!("organization/MemberRemoved")],
        StorageUsageChanged = [schema!("organization/StorageUsageChanged")],
    }
}

/// What a member may do, from most to least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Role {
    /// Owns the organization.
    Owner,
    /// Runs it for the owners.
    Admin,
    /// Works with its jobs and files.
    Member,
    /// Looks at them.
    Viewer,
}

/// An organization came to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrganizationCreated {
    /// What people call it.
    pub name: String,
}

/// An organization got another name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrganizationRenamed {
    /// The new name.
    pub name: String,
}

/// A user became a member of the organization.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberAdded {
    /// The user.
    pub user_id: Uuid,
    /// What the member may do.
    pub role: Role,
}

/// A member got another role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRoleChanged {
    /// The member.
    pub user_id: Uuid,
    /// What the member may do from now on.
    pub role: Role,
}

/// A user is no longer a member of the organization.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRemoved {
    /// The former member.
    pub user_id: Uuid,
}

/// The organization stores more or less than before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageUsageChanged {
    /// The change, in bytes; negative when space was freed.
    pub delta_bytes: i64,
    /// What the organization stores after the change, in bytes.
    pub total_bytes: i64,
}

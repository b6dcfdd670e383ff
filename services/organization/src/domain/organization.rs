//! The organization aggregate: members, roles, and the storage total.
//!
//! Invariants: an existing organization has at least one owner; a command grants and revokes only roles up to its
//! authority; the storage total is the sum of all changes. The total is not clamped: a negative sum is an anomaly of
//! the file events, and clamping would hide it and corrupt every later total.

use std::collections::BTreeMap;

use contracts::organization::{
    self as contract, MemberAdded, MemberRemoved, MemberRoleChanged, OrganizationCreated, OrganizationEvent,
    OrganizationRenamed, StorageUsageChanged,
};
use epoch::Aggregate;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{member_role::MemberRole, name::Name};

/// Maximum number of members of an organization.
pub const MAX_MEMBERS: usize = 1_000;

/// State of an organization.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Organization {
    /// `None` until the organization is created.
    name: Option<String>,
    members: BTreeMap<Uuid, MemberRole>,
    storage_bytes: i64,
}

/// Commands of an organization. `authority` is the highest role that the caller may grant or revoke.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrganizationCommand {
    /// Creates the organization with `owner` as its first member.
    Create {
        name: Name,
        owner: Uuid,
    },
    /// Changes the display name.
    Rename {
        name: Name,
    },
    /// Adds a user as a member.
    AddMember {
        user_id: Uuid,
        role: MemberRole,
        authority: MemberRole,
    },
    /// Changes a member's role.
    ChangeMemberRole {
        user_id: Uuid,
        role: MemberRole,
        authority: MemberRole,
    },
    RemoveMember {
        user_id: Uuid,
        authority: MemberRole,
    },
    /// Adds a positive or negative number of bytes to the storage total.
    ChangeStorageUsage {
        delta_bytes: i64,
    },
}

/// Rejection of a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrganizationError {
    #[error("the organization does not exist")]
    NotFound,
    #[error("the organization already exists")]
    AlreadyExists,
    #[error("user {user_id} is already a member")]
    AlreadyMember { user_id: Uuid },
    #[error("user {user_id} is not a member")]
    NotMember { user_id: Uuid },
    /// The command would leave the organization without an owner.
    #[error("user {user_id} is the last owner")]
    LastOwner { user_id: Uuid },
    /// The command grants or revokes a role above the caller's authority.
    #[error("the role {} is above the caller's role {}", role.as_str(), authority.as_str())]
    AboveAuthority { role: MemberRole, authority: MemberRole },
    #[error("an organization has at most {MAX_MEMBERS} members")]
    TooManyMembers,
    /// The new total does not fit into 64 bits.
    #[error("storage total out of range: {total_bytes} bytes changed by {delta_bytes} bytes")]
    StorageOutOfRange { total_bytes: i64, delta_bytes: i64 },
}

type Decision = Result<Vec<OrganizationEvent>, OrganizationError>;

impl Organization {
    /// Returns whether the organization was created.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.name.is_some()
    }

    /// Returns the roles of all members by user id.
    #[must_use]
    pub fn members(&self) -> &BTreeMap<Uuid, MemberRole> {
        &self.members
    }

    /// Returns the storage total in bytes; negative for an anomaly.
    #[must_use]
    pub fn storage_bytes(&self) -> i64 {
        self.storage_bytes
    }

    fn create(&self, name: &Name, owner: Uuid) -> Decision {
        if self.exists() {
            return Err(OrganizationError::AlreadyExists);
        }
        let created = OrganizationCreated { name: name.as_str().to_owned() };
        let owner = MemberAdded { user_id: owner, role: contract::Role::Owner };
        Ok(vec![created.into(), owner.into()])
    }

    fn rename(&self, name: &Name) -> Decision {
        match &self.name {
            None => Err(OrganizationError::NotFound),
            Some(present) if present == name.as_str() => Ok(vec![]),
            Some(_) => Ok(vec![OrganizationRenamed { name: name.as_str().to_owned() }.into()]),
        }
    }

    fn add_member(&self, user_id: Uuid, role: MemberRole, authority: MemberRole) -> Decision {
        self.require_exists()?;
        if self.members.contains_key(&user_id) {
            return Err(OrganizationError::AlreadyMember { user_id });
        }
        require_authority(role, authority)?;
        if self.members.len() >= MAX_MEMBERS {
            return Err(OrganizationError::TooManyMembers);
        }
        Ok(vec![MemberAdded { user_id, role: role.into() }.into()])
    }

    fn change_member_role(&self, user_id: Uuid, role: MemberRole, authority: MemberRole) -> Decision {
        self.require_exists()?;
        let present = self.member(user_id)?;
        require_authority(present, authority)?;
        require_authority(role, authority)?;
        if present == role {
            return Ok(vec![]);
        }
        self.require_another_owner(user_id)?;
        Ok(vec![MemberRoleChanged { user_id, role: role.into() }.into()])
    }

    fn remove_member(&self, user_id: Uuid, authority: MemberRole) -> Decision {
        self.require_exists()?;
        let present = self.member(user_id)?;
        require_authority(present, authority)?;
        self.require_another_owner(user_id)?;
        Ok(vec![MemberRemoved { user_id }.into()])
    }

    fn change_storage_usage(&self, delta_bytes: i64) -> Decision {
        self.require_exists()?;
        if delta_bytes == 0 {
            return Ok(vec![]);
        }
        let total_bytes = self
            .storage_bytes
            .checked_add(delta_bytes)
            .ok_or(OrganizationError::StorageOutOfRange { total_bytes: self.storage_bytes, delta_bytes })?;
        Ok(vec![StorageUsageChanged { delta_bytes, total_bytes }.into()])
    }

    fn require_exists(&self) -> Result<(), OrganizationError> {
        if self.exists() { Ok(()) } else { Err(OrganizationError::NotFound) }
    }

    fn member(&self, user_id: Uuid) -> Result<MemberRole, OrganizationError> {
        self.members.get(&user_id).copied().ok_or(OrganizationError::NotMember { user_id })
    }

    /// Checks that another owner remains if this member is an owner.
    fn require_another_owner(&self, user_id: Uuid) -> Result<(), OrganizationError> {
        if self.members.get(&user_id) != Some(&MemberRole::Owner) {
            return Ok(());
        }
        let another = self.members.iter().any(|(member, role)| *member != user_id && *role == MemberRole::Owner);
        if another { Ok(()) } else { Err(OrganizationError::LastOwner { user_id }) }
    }
}

fn require_authority(role: MemberRole, authority: MemberRole) -> Result<(), OrganizationError> {
    if role <= authority { Ok(()) } else { Err(OrganizationError::AboveAuthority { role, authority }) }
}

impl Aggregate for Organization {
    const NAME: &'static str = contract::AGGREGATE;
    type Command = OrganizationCommand;
    type Event = OrganizationEvent;
    type Error = OrganizationError;

    fn decide(&self, command: &OrganizationCommand) -> Decision {
        match command {
            OrganizationCommand::Create { name, owner } => self.create(name, *owner),
            OrganizationCommand::Rename { name } => self.rename(name),
            OrganizationCommand::AddMember { user_id, role, authority } => self.add_member(*user_id, *role, *authority),
            OrganizationCommand::ChangeMemberRole { user_id, role, authority } => {
                self.change_member_role(*user_id, *role, *authority)
            }
            OrganizationCommand::RemoveMember { user_id, authority } => self.remove_member(*user_id, *authority),
            OrganizationCommand::ChangeStorageUsage { delta_bytes } => self.change_storage_usage(*delta_bytes),
        }
    }

    fn evolve(&mut self, event: &OrganizationEvent) {
        match event {
            OrganizationEvent::OrganizationCreated(event) => self.name = Some(event.name.clone()),
            OrganizationEvent::OrganizationRenamed(event) => self.name = Some(event.name.clone()),
            OrganizationEvent::MemberAdded(event) => {
                self.members.insert(event.user_id, event.role.into());
            }
            OrganizationEvent::MemberRoleChanged(event) => {
                self.members.insert(event.user_id, event.role.into());
            }
            OrganizationEvent::MemberRemoved(event) => {
                self.members.remove(&event.user_id);
            }
            OrganizationEvent::StorageUsageChanged(event) => self.storage_bytes = event.total_bytes,
        }
    }
}

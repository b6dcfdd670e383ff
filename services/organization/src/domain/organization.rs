//! The organization: its members, and how much it stores.
//!
//! The problem: people come and go, and files of one organization are stored and deleted by many at once.
//!
//! The invariants: an organization that exists has at least one owner; nobody gives or takes a role above their own
//! authority; the total is the sum of all changes. The total is not clamped: should the events say that less than nothing is
//! stored, then so it is counted.

use std::collections::BTreeMap;

use contracts::organization::{
    self as contract, MemberAdded, MemberRemoved, MemberRoleChanged, OrganizationCreated, OrganizationEvent,
    OrganizationRenamed, StorageUsageChanged,
};
use epoch::Aggregate;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::{MemberRole, Name};

/// The most members an organization can have.
pub const MAX_MEMBERS: usize = 1_000;

/// An organization.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Organization {
    /// None before it is created.
    name: Option<String>,
    members: BTreeMap<Uuid, MemberRole>,
    storage_bytes: i64,
}

/// What an organization can be asked to do. `authority` is the highest role that whoever asks may give or take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrganizationCommand {
    /// Come to be.
    Create {
        /// What people call it.
        name: Name,
        /// Its first member.
        owner: Uuid,
    },
    /// Take another name.
    Rename {
        /// The new name.
        name: Name,
    },
    /// Take a member in.
    AddMember {
        /// The user.
        user_id: Uuid,
        /// What the member may do.
        role: MemberRole,
        /// The asker's.
        authority: MemberRole,
    },
    /// Give a member another role.
    ChangeMemberRole {
        /// The member.
        user_id: Uuid,
        /// What the member may do from now on.
        role: MemberRole,
        /// The asker's.
        authority: MemberRole,
    },
    /// Let a member go.
    RemoveMember {
        /// The member.
        user_id: Uuid,
        /// The asker's.
        authority: MemberRole,
    },
    /// Count what was stored or freed.
    ChangeStorageUsage {
        /// The change, in bytes.
        delta_bytes: i64,
    },
}

/// Why an organization says no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrganizationError {
    /// There is no such organization.
    #[error("the organization does not exist")]
    NotFound,
    /// There is one already.
    #[error("the organization exists already")]
    AlreadyExists,
    /// The user is a member already.
    #[error("user {user_id} is a member already")]
    AlreadyMember {
        /// Who.
        user_id: Uuid,
    },
    /// The user is no member.
    #[error("user {user_id} is not a member")]
    NotMember {
        /// Who.
        user_id: Uuid,
    },
    /// Nobody would own the organization any more.
    #[error("user {user_id} is the last owner")]
    LastOwner {
        /// Who.
        user_id: Uuid,
    },
    /// Whoever asks may not give or take this role.
    #[error("the role {} is above {}", role.as_str(), authority.as_str())]
    AboveAuthority {
        /// The role.
        role: MemberRole,
        /// The asker's.
        authority: MemberRole,
    },
    /// No more members fit.
    #[error("an organization has at most {MAX_MEMBERS} members")]
    TooManyMembers,
    /// The total can't be counted.
    #[error("{total_bytes} bytes can't be changed by {delta_bytes} bytes")]
    StorageOutOfRange {
        /// What is stored.
        total_bytes: i64,
        /// What should come to it.
        delta_bytes: i64,
    },
}

type Decision = Result<Vec<OrganizationEvent>, OrganizationError>;

impl Organization {
    /// Whether it was created.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.name.is_some()
    }

    /// Its members and their roles.
    #[must_use]
    pub fn members(&self) -> &BTreeMap<Uuid, MemberRole> {
        &self.members
    }

    /// What it stores, in bytes.
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

    /// Somebody else must own the organization, if this member does.
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

//! Roles of members and API keys.
//!
//! Roles are ordered. A caller grants and revokes only roles up to its own authority, so that an admin cannot promote
//! itself or create a stronger key. The platform roles (operator, service) are not member roles and cannot be granted.

use contracts::organization as contract;
use http_kit::Role;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Role in an organization. Each role includes the rights of all lower ones: `viewer`, `member`, `admin`, `owner`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum MemberRole {
    /// Reads jobs and files.
    Viewer,
    /// Uploads files and runs jobs.
    Member,
    /// Manages members, keys and job configurations.
    Admin,
    /// Renames the organization and manages its owners.
    Owner,
}

impl MemberRole {
    /// All roles, lowest first.
    pub const ALL: [MemberRole; 4] = [MemberRole::Viewer, MemberRole::Member, MemberRole::Admin, MemberRole::Owner];

    /// Returns the highest role that a caller with `role` may grant or revoke.
    #[must_use]
    pub const fn authority_of(role: Role) -> Self {
        match role {
            Role::Viewer => Self::Viewer,
            Role::Member => Self::Member,
            Role::Admin => Self::Admin,
            Role::Owner | Role::Operator | Role::Service => Self::Owner,
        }
    }

    /// Returns the stored and serialized name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Member => "member",
            Self::Admin => "admin",
            Self::Owner => "owner",
        }
    }
}

/// Text that names no member role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text} is not a member role")]
pub struct UnknownRole {
    text: String,
}

impl TryFrom<String> for MemberRole {
    type Error = UnknownRole;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or(UnknownRole { text })
    }
}

impl From<contract::Role> for MemberRole {
    fn from(role: contract::Role) -> Self {
        match role {
            contract::Role::Viewer => Self::Viewer,
            contract::Role::Member => Self::Member,
            contract::Role::Admin => Self::Admin,
            contract::Role::Owner => Self::Owner,
        }
    }
}

impl From<MemberRole> for contract::Role {
    fn from(role: MemberRole) -> Self {
        match role {
            MemberRole::Viewer => Self::Viewer,
            MemberRole::Member => Self::Member,
            MemberRole::Admin => Self::Admin,
            MemberRole::Owner => Self::Owner,
        }
    }
}

#[cfg(test)]
mod tests {
    use contracts::organization as contract;
    use http_kit::Role;

    use super::MemberRole;

    #[test]
    fn role_name_matches_json_contract_and_platform() {
        assert!(MemberRole::ALL.is_sorted());
        for role in MemberRole::ALL {
            assert_eq!(MemberRole::try_from(role.as_str().to_owned()), Ok(role));
            assert_eq!(serde_json::to_value(role).unwrap(), role.as_str());
            assert_eq!(MemberRole::from(contract::Role::from(role)), role);
            let platform = Role::parse(role.as_str()).unwrap();
            assert_eq!(MemberRole::authority_of(platform), role);
        }
        assert!(MemberRole::try_from("operator".to_owned()).is_err());
    }
}

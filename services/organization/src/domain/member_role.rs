//! What a member may do.
//!
//! The problem: whoever manages members could otherwise make themselves, or a key, more than they are.
//!
//! The invariant: roles are ordered, and nobody gives or takes a role above their own authority. Platform roles can't be
//! written as one of these at all.

use contracts::organization as contract;
use http_kit::Role;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a member, or a key, may do in its organization; each role may do all that the ones before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum MemberRole {
    /// Looks at jobs and files.
    Viewer,
    /// Works with them.
    Member,
    /// Manages members, keys and job configurations.
    Admin,
    /// Owns the organization.
    Owner,
}

impl MemberRole {
    /// All roles, from least to most.
    pub const ALL: [MemberRole; 4] = [MemberRole::Viewer, MemberRole::Member, MemberRole::Admin, MemberRole::Owner];

    /// The highest role that a caller with `role` may give or take.
    #[must_use]
    pub const fn authority_of(role: Role) -> Self {
        match role {
            Role::Viewer => Self::Viewer,
            Role::Member => Self::Member,
            Role::Admin => Self::Admin,
            Role::Owner | Role::Operator | Role::Service => Self::Owner,
        }
    }

    /// The role as it is stored and written in JSON.
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

/// Text that is no member's role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text} is not a member's role")]
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
    fn is_written_as_everywhere_else() {
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

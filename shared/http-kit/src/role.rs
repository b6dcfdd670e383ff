//! What a caller may do.
//!
//! The problem: lists of permissions drift apart between services.
//! The invariant: roles are ordered, and each may do all that the ones before it may.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a caller may do; each role may do all that the ones before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads what its organization has.
    Viewer,
    /// Uploads files and runs jobs.
    Member,
    /// Manages members, keys and job configurations.
    Admin,
    /// Manages the organization itself.
    Owner,
    /// Administers the platform, for all organizations.
    Operator,
    /// Is one of the platform's own services.
    Service,
}

impl Role {
    const ALL: [Role; 6] = [Role::Viewer, Role::Member, Role::Admin, Role::Owner, Role::Operator, Role::Service];

    /// The role as it is written in headers and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Member => "member",
            Role::Admin => "admin",
            Role::Owner => "owner",
            Role::Operator => "operator",
            Role::Service => "service",
        }
    }

    /// The role written as `text`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }
}

#[cfg(test)]
mod tests {
    use super::Role;

    #[test]
    fn roles_are_written_in_one_way_everywhere() {
        assert!(Role::ALL.is_sorted());
        for role in Role::ALL {
            assert_eq!(Role::parse(role.as_str()), Some(role));
            assert_eq!(serde_json::to_value(role).unwrap(), role.as_str());
        }
        assert_eq!(Role::parse("root"), None);
    }
}

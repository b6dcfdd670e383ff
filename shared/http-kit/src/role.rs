//! The ordered roles of callers. Each role may do everything that the roles before it may, so that services share one scale
//! instead of lists of permissions.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The rights of a caller. Each role includes the rights of the roles before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads the organization's resources.
    Viewer,
    /// Uploads files and runs jobs.
    Member,
    /// Manages members, keys and job configurations.
    Admin,
    /// Manages the organization itself.
    Owner,
    /// Administers the platform, for all organizations.
    Operator,
    /// One of the platform's own services.
    Service,
}

impl Role {
    const ALL: [Role; 6] = [Role::Viewer, Role::Member, Role::Admin, Role::Owner, Role::Operator, Role::Service];

    /// Returns the name of the role in headers and JSON.
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

    /// Parses the name of a role.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }
}

#[cfg(test)]
mod tests {
    use super::Role;

    #[test]
    fn role_has_one_spelling_in_headers_and_json() {
        assert!(Role::ALL.is_sorted());
        for role in Role::ALL {
            assert_eq!(Role::parse(role.as_str()), Some(role));
            assert_eq!(serde_json::to_value(role).unwrap(), role.as_str());
        }
        assert_eq!(Role::parse("root"), None);
    }
}

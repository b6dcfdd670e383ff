//! Access checks of handlers: membership, role, and ownership of a resource.
//!
//! A resource of another organization is a 404 with the same text as a resource that does not exist, so that a caller cannot
//! find out which ids are in use. Handlers check membership, then ownership, then the role.

use uuid::Uuid;

use crate::{caller::Caller, problem::Problem, role::Role};

/// Checks that the caller may see resources of `organization` and has `role` or a higher one.
///
/// # Errors
/// 404 outside of the organization, 403 for a lower role.
pub fn require(caller: &Caller, organization: Uuid, role: Role) -> Result<(), Problem> {
    caller.in_organization(organization)?;
    caller.at_least(role)
}

/// Checks that `owner`, the organization of resource `id`, is `organization`. The owner of a resource that does not exist
/// is `None`. `kind` names the resource in the problem, e.g. `job configuration`.
///
/// # Errors
/// 404 for another owner and for no owner, in the same words.
pub fn require_owner(organization: Uuid, owner: Option<Uuid>, kind: &str, id: Uuid) -> Result<(), Problem> {
    if owner == Some(organization) { Ok(()) } else { Err(does_not_exist(kind, id)) }
}

/// Returns the 404 for resource `id`. `kind` names the resource, e.g. `job configuration`.
#[must_use]
pub fn does_not_exist(kind: &str, id: Uuid) -> Problem {
    Problem::not_found(format!("{kind} {id} does not exist"))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::{Caller, Role, does_not_exist, require, require_owner};

    #[test]
    fn membership_is_checked_before_the_role() {
        let organization = Uuid::from_u128(1);
        let viewer = Caller::key(Uuid::nil(), organization, Role::Viewer);
        assert!(require(&viewer, organization, Role::Viewer).is_ok());
        assert_eq!(require(&viewer, organization, Role::Admin).unwrap_err().status(), 403);
        assert_eq!(require(&viewer, Uuid::from_u128(2), Role::Admin).unwrap_err().status(), 404);
    }

    #[test]
    fn foreign_resource_reads_like_a_missing_one() {
        let (organization, id) = (Uuid::from_u128(1), Uuid::from_u128(7));
        assert!(require_owner(organization, Some(organization), "job", id).is_ok());
        for owner in [None, Some(Uuid::from_u128(2))] {
            assert_eq!(require_owner(organization, owner, "job", id), Err(does_not_exist("job", id)));
        }
    }
}

//! Access checks of the routes of one organization.

use service_kit::{Caller, IntoProblem, Problem, Role};
use uuid::Uuid;

use crate::domain::{MemberRole, OrganizationError};

/// Checks that the caller may see the organization and has at least `role` in it.
pub(super) fn require(caller: &Caller, organization: Uuid, role: Role) -> Result<(), Problem> {
    caller.in_organization(organization)?;
    caller.at_least(role)
}

/// Checks that a caller with `authority` may grant or revoke `role`.
pub(super) fn require_authority(role: MemberRole, authority: MemberRole) -> Result<(), Problem> {
    if role <= authority { Ok(()) } else { Err(OrganizationError::AboveAuthority { role, authority }.into_problem()) }
}

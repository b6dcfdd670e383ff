//! Access checks of the routes of one organization.

pub(super) use http_kit::access::require;
use http_kit::{IntoProblem, Problem};

use crate::domain::{MemberRole, OrganizationError};

/// Checks that a caller with `authority` may grant or revoke `role`.
pub(super) fn require_authority(role: MemberRole, authority: MemberRole) -> Result<(), Problem> {
    if role <= authority { Ok(()) } else { Err(OrganizationError::AboveAuthority { role, authority }.into_problem()) }
}

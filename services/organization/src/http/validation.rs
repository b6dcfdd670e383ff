//! What the client is told when an organization says no, or when text isn't what it should be.

use service_kit::{IntoProblem, Problem};
use uuid::Uuid;

use crate::{
    domain::{Email, MemberRole, Name, OrganizationError},
    tables::users::Person,
};

impl IntoProblem for OrganizationError {
    fn into_problem(self) -> Problem {
        let detail = self.to_string();
        match self {
            Self::NotFound | Self::NotMember { .. } => Problem::not_found(detail),
            Self::AboveAuthority { .. } => Problem::forbidden(detail),
            Self::AlreadyMember { .. } => {
                Problem::conflict(detail).of_kind("/problems/already-member", "already a member")
            }
            Self::LastOwner { .. } => {
                Problem::conflict(detail).of_kind("/problems/last-owner", "an organization needs an owner")
            }
            Self::TooManyMembers => Problem::conflict(detail).of_kind("/problems/too-many-members", "too many members"),
            Self::AlreadyExists | Self::StorageOutOfRange { .. } => Problem::conflict(detail),
        }
    }
}

/// 404 in the words of [`service_kit::Caller::in_organization`], so that nobody can tell the two apart.
pub(crate) fn does_not_exist(organization: Uuid) -> Problem {
    Problem::not_found(format!("organization {organization} does not exist"))
}

/// Checks that a caller may give or take `role`.
pub(crate) fn require_authority(role: MemberRole, authority: MemberRole) -> Result<(), Problem> {
    if role <= authority { Ok(()) } else { Err(OrganizationError::AboveAuthority { role, authority }.into_problem()) }
}

/// The name that stands at `pointer` in the body.
pub(crate) fn name(text: &str, pointer: &str) -> Result<Name, Problem> {
    Name::parse(text).map_err(|error| misfit(&error, pointer))
}

/// The person whose address and name stand in the object at `pointer` in the body.
pub(crate) fn person(email: &str, person_name: &str, pointer: &str) -> Result<Person, Problem> {
    let email = Email::parse(email).map_err(|error| misfit(&error, &format!("{pointer}/email")))?;
    let name = name(person_name, &format!("{pointer}/name"))?;
    Ok(Person { email, name })
}

fn misfit(error: &dyn std::error::Error, pointer: &str) -> Problem {
    let detail = error.to_string();
    Problem::unprocessable(detail.clone()).at(pointer, detail)
}

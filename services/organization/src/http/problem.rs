//! Problem responses of the organization routes.

use http_kit::{
    IntoProblem, Problem,
    access::does_not_exist,
    openapi::{Responses, problem_responses},
};
use utoipa::IntoResponses;
use uuid::Uuid;

use crate::domain::OrganizationError;

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

/// Returns a 404 with the text of [`http_kit::Caller::in_organization`], so that a missing organization and another
/// caller's organization look the same.
pub(super) fn organization_not_found(organization: Uuid) -> Problem {
    does_not_exist("organization", organization)
}

/// Problems of every route of one organization that needs the lowest role.
pub(super) struct ReadProblems;

impl IntoResponses for ReadProblems {
    fn responses() -> Responses {
        problem_responses(&[
            (400, "A path parameter, a query parameter or a header is malformed."),
            (401, "The request has no valid API key."),
            (404, "The organization or the resource does not exist, or the caller is not a member."),
        ])
    }
}

/// Problems of every route of one organization that needs a higher role.
pub(super) struct AdminProblems;

impl IntoResponses for AdminProblems {
    fn responses() -> Responses {
        let mut responses = ReadProblems::responses();
        responses.extend(problem_responses(&[(403, "The caller's role is too low.")]));
        responses
    }
}

/// Problems of a change of a member, which can concern the last owner.
pub(super) struct MemberChangeProblems;

impl IntoResponses for MemberChangeProblems {
    fn responses() -> Responses {
        let mut responses = AdminProblems::responses();
        responses.extend(problem_responses(&[
            (409, "The member is the last owner."),
            (412, "The organization is not at the version of `If-Match`."),
        ]));
        responses
    }
}

/// Problems of every command with a JSON body.
pub(super) struct JsonCommandProblems;

impl IntoResponses for JsonCommandProblems {
    fn responses() -> Responses {
        problem_responses(&[
            (400, "The body or a header is malformed, or a POST has no `Idempotency-Key`."),
            (413, "The body is larger than 1 MiB."),
            (415, "The `Content-Type` is not `application/json`."),
            (422, "A field is missing, unknown or invalid, or the `Idempotency-Key` belongs to another request."),
        ])
    }
}

//! Problem responses of the organization routes.

use std::collections::BTreeMap;

use http_kit::{IntoProblem, Problem};
use utoipa::{
    IntoResponses, ToSchema,
    openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder},
};
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
    Problem::not_found(format!("organization {organization} does not exist"))
}

/// Problems of every route of one organization that needs the lowest role.
pub(super) struct ReadProblems;

impl IntoResponses for ReadProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problem_responses(&[
            ("400", "A path parameter, a query parameter or a header is malformed."),
            ("401", "The request has no valid API key."),
            ("404", "The organization or the resource does not exist, or the caller is not a member."),
        ])
    }
}

/// Problems of every route of one organization that needs a higher role.
pub(super) struct AdminProblems;

impl IntoResponses for AdminProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let mut responses = ReadProblems::responses();
        responses.extend(problem_responses(&[("403", "The caller's role is too low.")]));
        responses
    }
}

/// Problems of every command with a JSON body.
pub(super) struct JsonCommandProblems;

impl IntoResponses for JsonCommandProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problem_responses(&[
            ("400", "The body or a header is malformed, or a POST has no `Idempotency-Key`."),
            ("413", "The body is larger than 1 MiB."),
            ("415", "The `Content-Type` is not `application/json`."),
            ("422", "A field is missing, unknown or invalid, or the `Idempotency-Key` belongs to another request."),
        ])
    }
}

fn problem_responses(problems: &[(&str, &str)]) -> BTreeMap<String, RefOr<Response>> {
    let schema = Ref::from_schema_name(Problem::name());
    let content = ContentBuilder::new().schema(Some(schema)).build();
    let response = |description: &str| {
        ResponseBuilder::new().description(description).content("application/problem+json", content.clone()).build()
    };
    problems.iter().map(|(status, description)| ((*status).to_owned(), response(description).into())).collect()
}

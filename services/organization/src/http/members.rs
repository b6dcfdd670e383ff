//! `/api/v1/organizations/{org}/members`

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use epoch::{ExecutionOutcome, Version};
use epoch_postgres::TransactionError;
use futures::FutureExt;
use http_kit::{
    ApiPath, Command, CommandResponse, Problem, Role,
    command_response::etag,
    parameters::{IdempotencyKey, IfMatch, OptionalIdempotencyKey, OrganizationPath},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    access::require,
    parameters::MemberPath,
    problem::{AdminProblems, JsonCommandProblems, MemberChangeProblems},
    state::HttpState,
    validation::parse_person,
};
use crate::{
    domain::{MemberRole, OrganizationCommand, OrganizationError},
    tables::api_keys,
};

/// Request to add a member. An e-mail address that is already registered refers to the existing user.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AddMemberRequest {
    /// E-mail address; upper and lower case are the same address.
    #[schema(example = "bob@example.org")]
    email: String,
    /// Name of the person, 1 to 200 characters. An existing user keeps the registered name.
    #[schema(example = "Bob Smith")]
    name: String,
    /// Role of the member, at most the caller's own role.
    role: MemberRole,
}

/// Request to change a member's role.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangeMemberRoleRequest {
    /// New role of the member, at most the caller's own role.
    role: MemberRole,
}

/// Result of adding a member.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AddedMemberResponse {
    /// Organization id.
    id: Uuid,
    /// User id of the member.
    user_id: Uuid,
    /// Version of the organization after the change.
    #[schema(value_type = u64, example = 8)]
    version: Version,
}

/// Add a member.
///
/// Adds a person to the organization, and registers the person as a user if the e-mail address is new. An organization
/// has at most 1,000 members. Requires the role `admin`.
#[utoipa::path(
    post, path = "/api/v1/organizations/{org}/members", tag = "members",
    params(OrganizationPath, IdempotencyKey, IfMatch), request_body = AddMemberRequest,
    responses(
        (status = 201, description = "The member was added.", body = AddedMemberResponse, headers(
            ("Location" = String, description = "Path of the member."),
            ("ETag" = String, description = "Version of the organization."),
        )),
        (status = 409, description = "The person is already a member, or the organization is full.",
            body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "The organization is not at the version of `If-Match`.",
            body = Problem, content_type = "application/problem+json"),
        AdminProblems, JsonCommandProblems,
    )
)]
pub(super) async fn add_member(
    State(state): State<HttpState>,
    ApiPath(OrganizationPath { org }): ApiPath<OrganizationPath>,
    command: Command<AddMemberRequest>,
) -> Result<Response, Problem> {
    require(&command.caller, org, Role::Admin)?;
    let AddMemberRequest { email, name, role } = command.body;
    let person = parse_person(&email, &name, "")?;
    let authority = MemberRole::authority_of(command.caller.role);
    let add = move |user_id| OrganizationCommand::AddMember { user_id, role, authority };
    let context = command.context.for_tenant(org);
    let (user_id, ExecutionOutcome { version, .. }) = state.execute_for_person(org, person, context, add).await?;
    let location = format!("/api/v1/organizations/{org}/members/{user_id}");
    let headers = [(header::LOCATION, location), (header::ETAG, etag(version))];
    Ok((StatusCode::CREATED, headers, Json(AddedMemberResponse { id: org, user_id, version })).into_response())
}

/// Change a member's role.
///
/// Both the present and the new role must be at most the caller's own. The last owner keeps the role. Requires the role
/// `admin`.
#[utoipa::path(
    patch, path = "/api/v1/organizations/{org}/members/{user}", tag = "members",
    params(MemberPath, IfMatch, OptionalIdempotencyKey), request_body = ChangeMemberRoleRequest,
    responses(
        (status = 200, description = "The member has the role.", body = CommandResponse, headers(
            ("ETag" = String, description = "Version of the organization."),
        )),
        MemberChangeProblems, JsonCommandProblems,
    )
)]
pub(super) async fn change_member_role(
    State(state): State<HttpState>,
    ApiPath(MemberPath { org, user }): ApiPath<MemberPath>,
    command: Command<ChangeMemberRoleRequest>,
) -> Result<CommandResponse, Problem> {
    require(&command.caller, org, Role::Admin)?;
    let authority = MemberRole::authority_of(command.caller.role);
    let change = OrganizationCommand::ChangeMemberRole { user_id: user, role: command.body.role, authority };
    let context = command.context.for_tenant(org);
    Ok(state.organizations.execute(org, &change, &context).await?.into())
}

/// Remove a member.
///
/// Removes a member and revokes all API keys that act for the member in this organization. The member's role must be at
/// most the caller's own. The last owner stays. Requires the role `admin`.
#[utoipa::path(
    delete, path = "/api/v1/organizations/{org}/members/{user}", tag = "members",
    params(MemberPath, IfMatch, OptionalIdempotencyKey),
    responses(
        (status = 200, description = "The member was removed.", body = CommandResponse, headers(
            ("ETag" = String, description = "Version of the organization."),
        )),
        MemberChangeProblems,
    )
)]
pub(super) async fn remove_member(
    State(state): State<HttpState>,
    ApiPath(MemberPath { org, user }): ApiPath<MemberPath>,
    command: Command<()>,
) -> Result<CommandResponse, Problem> {
    require(&command.caller, org, Role::Admin)?;
    let authority = MemberRole::authority_of(command.caller.role);
    let context = command.context.for_tenant(org);
    let organizations = state.organizations.clone();
    let removed = state.store.transaction(move |tx| {
        let (organizations, context) = (organizations.clone(), context.clone());
        async move {
            let remove = OrganizationCommand::RemoveMember { user_id: user, authority };
            let executed = tx.execute(&organizations, org, &remove, &context).await?;
            // The user may be a member again by now, with new keys. A repeated command must not revoke these.
            if !executed.repeated {
                api_keys::revoke_of_user(tx.connection(), org, user, context.occurred_at).await?;
            }
            Ok::<_, TransactionError<OrganizationError>>(executed)
        }
        .boxed()
    });
    Ok(removed.await?.into())
}

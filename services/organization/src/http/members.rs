//! `/api/v1/organizations/{organization}/members`

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use epoch::{Executed, Version};
use futures::FutureExt;
use serde::{Deserialize, Serialize};
use service_kit::{ApiPath, Changed, Command, Problem, Role, changed::etag};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Api, require, transaction_error::Failure, validation::person};
use crate::{
    domain::{MemberRole, OrganizationCommand},
    tables::api_keys,
};

/// A member to be; an e-mail address that is known is the user it belongs to.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AddMember {
    /// The e-mail address.
    email: String,
    /// The person's name, 1 to 200 characters; a user who is known keeps theirs.
    name: String,
    /// What the member may do; not above the caller's own role.
    role: MemberRole,
}

/// What to change about a member.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChangeMember {
    /// What the member may do from now on; not above the caller's own role.
    role: MemberRole,
}

/// A member who was added.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MemberAdded {
    /// The organization.
    id: Uuid,
    /// The user.
    user_id: Uuid,
    /// The organization's version after it.
    #[schema(value_type = u64)]
    version: Version,
}

/// Adds a member, who becomes a user if they aren't one. For admins.
#[utoipa::path(
    post, path = "/api/v1/organizations/{organization}/members", tag = "members", operation_id = "addMember",
    params(("organization" = Uuid, Path), ("Idempotency-Key" = String, Header)), request_body = AddMember,
    responses((status = 201, body = MemberAdded), (status = 403, body = Problem), (status = 409, body = Problem))
)]
pub(crate) async fn add(
    State(api): State<Api>,
    ApiPath(organization): ApiPath<Uuid>,
    command: Command<AddMember>,
) -> Result<Response, Problem> {
    require(&command.caller, organization, Role::Admin)?;
    let AddMember { email, name, role } = command.body;
    let person = person(&email, &name, "")?;
    let authority = MemberRole::authority_of(command.caller.role);
    let add = move |user_id| OrganizationCommand::AddMember { user_id, role, authority };
    let context = command.context.for_tenant(organization);
    let (user_id, Executed { version, .. }) = api.execute_for_person(organization, person, context, add).await?;
    let location = format!("/api/v1/organizations/{organization}/members/{user_id}");
    let headers = [(header::LOCATION, location), (header::ETAG, etag(version))];
    Ok((StatusCode::CREATED, headers, Json(MemberAdded { id: organization, user_id, version })).into_response())
}

/// Gives a member another role. For admins.
#[utoipa::path(
    patch, path = "/api/v1/organizations/{organization}/members/{user}", tag = "members",
    operation_id = "changeMember", params(("organization" = Uuid, Path), ("user" = Uuid, Path)),
    request_body = ChangeMember,
    responses((status = 200, body = Changed), (status = 404, body = Problem), (status = 409, body = Problem))
)]
pub(crate) async fn change_role(
    State(api): State<Api>,
    ApiPath((organization, user_id)): ApiPath<(Uuid, Uuid)>,
    command: Command<ChangeMember>,
) -> Result<Changed, Problem> {
    require(&command.caller, organization, Role::Admin)?;
    let authority = MemberRole::authority_of(command.caller.role);
    let change = OrganizationCommand::ChangeMemberRole { user_id, role: command.body.role, authority };
    let context = command.context.for_tenant(organization);
    Ok(api.organizations.execute(organization, &change, &context).await?.into())
}

/// Removes a member and revokes the keys that act for them. For admins.
#[utoipa::path(
    delete, path = "/api/v1/organizations/{organization}/members/{user}", tag = "members",
    operation_id = "removeMember", params(("organization" = Uuid, Path), ("user" = Uuid, Path)),
    responses((status = 200, body = Changed), (status = 404, body = Problem), (status = 409, body = Problem))
)]
pub(crate) async fn remove(
    State(api): State<Api>,
    ApiPath((organization, user_id)): ApiPath<(Uuid, Uuid)>,
    command: Command<()>,
) -> Result<Changed, Problem> {
    require(&command.caller, organization, Role::Admin)?;
    let authority = MemberRole::authority_of(command.caller.role);
    let context = command.context.for_tenant(organization);
    let organizations = api.organizations.clone();
    let removed = api.store.transaction(move |tx| {
        let (organizations, context) = (organizations.clone(), context.clone());
        async move {
            let remove = OrganizationCommand::RemoveMember { user_id, authority };
            let executed = tx.execute(&organizations, organization, &remove, &context).await?;
            // A command that comes again must not revoke keys that the user has got since, as a member once more.
            if !executed.repeated {
                api_keys::revoke_of_user(tx.connection(), organization, user_id, context.occurred_at).await?;
            }
            Ok::<_, Failure>(executed)
        }
        .boxed()
    });
    Ok(removed.await?.into())
}

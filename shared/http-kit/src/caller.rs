//! The authenticated caller of a request.
//!
//! Only the console checks sessions and API keys. It passes the caller to the services in headers, together with the
//! installation's internal token. Services accept a [`Caller`] only with that token, and the console
//! [strips](strip_caller_headers) these headers from requests of clients.

use axum::{
    extract::{FromRef, FromRequestParts},
    http::{HeaderMap, HeaderName, HeaderValue, header::InvalidHeaderValue, request::Parts},
};
use uuid::Uuid;

use crate::{problem::Problem, role::Role, secrets::Secrets};

/// Carries [`Secrets::internal_token`].
pub const INTERNAL_HEADER: HeaderName = HeaderName::from_static("x-catacloud-internal");
/// Carries [`Caller::organization`].
pub const ORGANIZATION_HEADER: HeaderName = HeaderName::from_static("x-catacloud-organization");
/// Carries [`Caller::actor`].
pub const ACTOR_HEADER: HeaderName = HeaderName::from_static("x-catacloud-actor");
/// Carries [`Caller::user_id`].
pub const USER_HEADER: HeaderName = HeaderName::from_static("x-catacloud-user");
/// Carries [`Caller::role`].
pub const ROLE_HEADER: HeaderName = HeaderName::from_static("x-catacloud-role");

const CALLER_HEADERS: [HeaderName; 5] = [INTERNAL_HEADER, ORGANIZATION_HEADER, ACTOR_HEADER, USER_HEADER, ROLE_HEADER];

/// An authenticated person, API key, service or operator, with its role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The organization the caller acts for. Operators and services may have none.
    pub organization: Option<Uuid>,
    /// `key:<id>`, `user:<id>`, `service:<name>` or `operator`. Events store it.
    pub actor: String,
    /// Set for a person, `None` for keys, services and the operator.
    pub user_id: Option<Uuid>,
    pub role: Role,
}

impl Caller {
    /// Returns a person with a role in an organization, or an operator.
    #[must_use]
    pub fn user(user_id: Uuid, organization: Option<Uuid>, role: Role) -> Self {
        Self { organization, actor: format!("user:{user_id}"), user_id: Some(user_id), role }
    }

    /// Returns an API key of an organization.
    #[must_use]
    pub fn key(key_id: Uuid, organization: Uuid, role: Role) -> Self {
        Self { organization: Some(organization), actor: format!("key:{key_id}"), user_id: None, role }
    }

    /// Returns one of the platform's own services.
    #[must_use]
    pub fn service(name: &str) -> Self {
        Self { organization: None, actor: format!("service:{name}"), user_id: None, role: Role::Service }
    }

    /// Returns the administrator of the platform.
    #[must_use]
    pub fn operator() -> Self {
        Self { organization: None, actor: "operator".to_owned(), user_id: None, role: Role::Operator }
    }

    /// Returns the same caller, acting for `organization`.
    #[must_use]
    pub fn acting_for(mut self, organization: Uuid) -> Self {
        self.organization = Some(organization);
        self
    }

    /// Checks that the caller may see resources of `organization`. Operators and services may see every organization's.
    ///
    /// # Errors
    /// 404, so that a caller outside of the organization cannot learn that it exists.
    pub fn in_organization(&self, organization: Uuid) -> Result<(), Problem> {
        if self.organization == Some(organization) || self.role >= Role::Operator {
            return Ok(());
        }
        Err(Problem::not_found(format!("organization {organization} does not exist")))
    }

    /// Checks that the caller has `role` or a higher one.
    ///
    /// # Errors
    /// 403 for a lower role.
    pub fn at_least(&self, role: Role) -> Result<(), Problem> {
        if self.role >= role {
            return Ok(());
        }
        Err(Problem::forbidden(format!("requires the role {}, the caller has {}", role.as_str(), self.role.as_str())))
    }

    /// Writes the caller and the internal token into the headers of a request to another process of this installation.
    /// Replaces any caller headers that are there.
    ///
    /// # Errors
    /// [`InvalidHeaderValue`] when the actor is not visible ASCII.
    pub fn write_to(&self, headers: &mut HeaderMap, secrets: &Secrets) -> Result<(), InvalidHeaderValue> {
        strip_caller_headers(headers);
        let mut token = HeaderValue::from_str(secrets.internal_token())?;
        token.set_sensitive(true);
        headers.insert(INTERNAL_HEADER, token);
        headers.insert(ACTOR_HEADER, HeaderValue::from_str(&self.actor)?);
        headers.insert(ROLE_HEADER, HeaderValue::from_static(self.role.as_str()));
        if let Some(organization) = self.organization {
            headers.insert(ORGANIZATION_HEADER, HeaderValue::from_str(&organization.to_string())?);
        }
        if let Some(user_id) = self.user_id {
            headers.insert(USER_HEADER, HeaderValue::from_str(&user_id.to_string())?);
        }
        Ok(())
    }

    /// Reads the caller from the headers of a request.
    ///
    /// # Errors
    /// 401 without the right internal token, or when a header is missing or malformed.
    pub fn from_headers(headers: &HeaderMap, secrets: &Secrets) -> Result<Self, Problem> {
        let token = headers.get(INTERNAL_HEADER).map(HeaderValue::as_bytes).unwrap_or_default();
        if !secrets.is_internal_token(token) {
            return Err(Problem::unauthorized("the request does not carry this installation's internal token"));
        }
        let actor =
            text(headers, &ACTOR_HEADER)?.filter(|actor| is_actor(actor)).ok_or_else(|| malformed(&ACTOR_HEADER))?;
        let role = text(headers, &ROLE_HEADER)?.and_then(Role::parse).ok_or_else(|| malformed(&ROLE_HEADER))?;
        Ok(Self {
            organization: uuid(headers, &ORGANIZATION_HEADER)?,
            actor: actor.to_owned(),
            user_id: uuid(headers, &USER_HEADER)?,
            role,
        })
    }
}

/// Removes all caller headers from a client's request, so that no client can claim to be a caller.
pub fn strip_caller_headers(headers: &mut HeaderMap) {
    for name in &CALLER_HEADERS {
        headers.remove(name);
    }
}

impl<S> FromRequestParts<S> for Caller
where
    S: Send + Sync,
    Secrets: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        Self::from_headers(&parts.headers, &Secrets::from_ref(state))
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Problem> {
    headers.get(name).map(|value| value.to_str().map_err(|_| malformed(name))).transpose()
}

fn uuid(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Uuid>, Problem> {
    text(headers, name)?.map(|text| text.parse().map_err(|_| malformed(name))).transpose()
}

fn malformed(name: &HeaderName) -> Problem {
    Problem::unauthorized(format!("header {name} is missing or malformed"))
}

fn is_actor(text: &str) -> bool {
    match text.split_once(':') {
        Some(("key" | "user", id)) => id.parse::<Uuid>().is_ok(),
        Some(("service", name)) => {
            !name.is_empty()
                && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        }
        Some(_) => false,
        None => text == "operator",
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderValue};
    use uuid::Uuid;

    use super::{
        ACTOR_HEADER, Caller, INTERNAL_HEADER, ORGANIZATION_HEADER, ROLE_HEADER, Role, USER_HEADER,
        strip_caller_headers,
    };
    use crate::secrets::Secrets;

    fn secrets() -> Secrets {
        Secrets::new("a secret for the tests").unwrap()
    }

    fn headers_of(caller: &Caller) -> HeaderMap {
        let mut headers = HeaderMap::new();
        caller.write_to(&mut headers, &secrets()).unwrap();
        headers
    }

    #[test]
    fn caller_survives_the_headers() {
        let (id, organization) = (Uuid::now_v7(), Uuid::now_v7());
        let callers = [
            Caller::user(id, Some(organization), Role::Owner),
            Caller::user(id, None, Role::Operator),
            Caller::key(id, organization, Role::Member),
            Caller::service("job"),
            Caller::service("job").acting_for(organization),
            Caller::operator(),
        ];
        for caller in callers {
            assert_eq!(Caller::from_headers(&headers_of(&caller), &secrets()), Ok(caller));
        }
    }

    #[test]
    fn headers_without_token_or_malformed_are_refused() {
        let good = headers_of(&Caller::user(Uuid::now_v7(), Some(Uuid::now_v7()), Role::Admin));
        let cases = [
            (INTERNAL_HEADER, ""),
            (INTERNAL_HEADER, "0000"),
            (ACTOR_HEADER, "key:1"),
            (ACTOR_HEADER, "root"),
            (ACTOR_HEADER, "service:"),
            (ACTOR_HEADER, "service:Ä"),
            (ROLE_HEADER, "Admin"),
            (ORGANIZATION_HEADER, "mine"),
            (USER_HEADER, "me"),
        ];
        for (name, value) in cases {
            let mut headers = good.clone();
            headers.insert(name.clone(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
            let status = Caller::from_headers(&headers, &secrets()).unwrap_err().status();
            assert_eq!(status, 401, "{name}: {value}");
        }
        for name in [INTERNAL_HEADER, ACTOR_HEADER, ROLE_HEADER] {
            let mut headers = good.clone();
            headers.remove(&name);
            assert_eq!(Caller::from_headers(&headers, &secrets()).unwrap_err().status(), 401, "{name}");
        }
        assert!(Caller::from_headers(&good, &Secrets::new("another secret, as long").unwrap()).is_err());
    }

    #[test]
    fn strip_removes_all_caller_headers() {
        let mut headers = headers_of(&Caller::user(Uuid::now_v7(), Some(Uuid::now_v7()), Role::Admin));
        headers.insert("accept", HeaderValue::from_static("*/*"));
        strip_caller_headers(&mut headers);
        assert_eq!(headers.keys().collect::<Vec<_>>(), ["accept"]);
    }

    #[test]
    fn foreign_organization_is_not_found() {
        let (mine, other) = (Uuid::now_v7(), Uuid::now_v7());
        let member = Caller::key(Uuid::now_v7(), mine, Role::Owner);
        assert!(member.in_organization(mine).is_ok());
        assert_eq!(member.in_organization(other).unwrap_err().status(), 404);
        assert_eq!(Caller::user(Uuid::now_v7(), None, Role::Owner).in_organization(mine).unwrap_err().status(), 404);
        assert!(Caller::operator().in_organization(other).is_ok());
        assert!(Caller::service("job").in_organization(other).is_ok());
    }

    #[test]
    fn lower_role_is_forbidden() {
        let admin = Caller::key(Uuid::now_v7(), Uuid::now_v7(), Role::Admin);
        assert!(admin.at_least(Role::Viewer).is_ok() && admin.at_least(Role::Admin).is_ok());
        assert_eq!(admin.at_least(Role::Owner).unwrap_err().status(), 403);
    }
}

//! Who may ask what: the first lines of every route.
//!
//! The problem: a route that forgets to check shows one organization what is another's.
//!
//! The invariant: an organization's id reaches a route that shows things only through [`Viewed`], which has checked that the caller
//! may see it; an operator's command reaches a route only through [`Operated`].

use axum::{
    extract::{FromRequest, FromRequestParts, Request},
    http::request::Parts,
};
use http_kit::{ApiPath, Caller, Command, Problem, Role};
use rating::calendar::month::{InvalidMonth, Month};
use serde::{Deserialize, de::DeserializeOwned};
use uuid::Uuid;

use crate::http::state::Api;

/// The organization in the path, `{org}`, whose things the caller may see.
#[derive(Debug, Clone, Copy)]
pub struct Viewed(pub Uuid);

/// A command of an operator.
#[derive(Debug, Clone)]
pub struct Operated<T>(pub Command<T>);

/// The month in the path, `{month}`, as `2026-03`.
#[derive(Debug, Clone, Copy)]
pub struct Monthly(pub Month);

/// The invoice in the path, `{month}`: that of a month that counts, or one by its id, which may be void.
#[derive(Debug, Clone, Copy)]
pub enum Invoiced {
    /// Of a month, as `2026-03`.
    Of(Month),
    /// By its id.
    Id(Uuid),
}

#[derive(Deserialize)]
struct OrganizationPath {
    org: Uuid,
}

#[derive(Deserialize)]
struct MonthPath {
    month: String,
}

impl FromRequestParts<Api> for Viewed {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let ApiPath(OrganizationPath { org }) = ApiPath::from_request_parts(parts, api).await?;
        let caller = Caller::from_request_parts(parts, api).await?;
        caller.in_organization(org)?;
        caller.at_least(Role::Viewer)?;
        Ok(Self(org))
    }
}

impl<T: DeserializeOwned> FromRequest<Api> for Operated<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        let command = Command::from_request(request, api).await?;
        command.caller.at_least(Role::Operator)?;
        Ok(Self(command))
    }
}

impl FromRequestParts<Api> for Monthly {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let ApiPath(MonthPath { month }) = ApiPath::from_request_parts(parts, api).await?;
        month.parse().map(Self).map_err(|error: InvalidMonth| Problem::unprocessable(error.to_string()))
    }
}

impl FromRequestParts<Api> for Invoiced {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let ApiPath(MonthPath { month }) = ApiPath::from_request_parts(parts, api).await?;
        if let Ok(id) = month.parse() {
            return Ok(Self::Id(id));
        }
        month.parse().map(Self::Of).map_err(|error: InvalidMonth| Problem::unprocessable(error.to_string()))
    }
}

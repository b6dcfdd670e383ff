//! Extractors that check the caller's access.
//!
//! A route that forgets the check shows one organization's data to another. So a route that reads takes the organization's id
//! from [`ViewedOrganization`], and a route that executes an operator's command takes the command from [`OperatorCommand`].

use axum::{
    extract::{FromRequest, FromRequestParts, Request},
    http::request::Parts,
};
use http_kit::{ApiPath, Caller, Command, Problem, Role, access::require};
use rating::calendar::month::{InvalidMonth, Month};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::http::{
    parameters::{InvoicePath, MonthPath, OrganizationPath},
    state::Api,
};

/// The organization in the path, `{org}`, which the caller may view.
#[derive(Debug, Clone, Copy)]
pub(super) struct ViewedOrganization(pub(super) Uuid);

/// A command whose caller is an operator.
#[derive(Debug, Clone)]
pub(super) struct OperatorCommand<T>(pub(super) Command<T>);

/// The organization and the month in the path, e.g. `2026-03`. Does not check the caller.
#[derive(Debug, Clone, Copy)]
pub(super) struct AccountMonth {
    pub(super) organization: Uuid,
    pub(super) month: Month,
}

/// The invoice in the path, `{month}`.
#[derive(Debug, Clone, Copy)]
pub(super) enum InvoiceSelector {
    /// The current invoice of a month, e.g. `2026-03`.
    Month(Month),
    /// An invoice by its id, which may be void.
    Id(Uuid),
}

impl FromRequestParts<Api> for ViewedOrganization {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let ApiPath(OrganizationPath { org }) = ApiPath::from_request_parts(parts, api).await?;
        let caller = Caller::from_request_parts(parts, api).await?;
        require(&caller, org, Role::Viewer)?;
        Ok(Self(org))
    }
}

impl<T: DeserializeOwned> FromRequest<Api> for OperatorCommand<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        let command = Command::from_request(request, api).await?;
        command.caller.at_least(Role::Operator)?;
        Ok(Self(command))
    }
}

impl FromRequestParts<Api> for AccountMonth {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let ApiPath(MonthPath { org, month }) = ApiPath::from_request_parts(parts, api).await?;
        Ok(Self { organization: org, month: parse_month(&month)? })
    }
}

impl FromRequestParts<Api> for InvoiceSelector {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let ApiPath(InvoicePath { month, .. }) = ApiPath::from_request_parts(parts, api).await?;
        match month.parse() {
            Ok(id) => Ok(Self::Id(id)),
            Err(_) => parse_month(&month).map(Self::Month),
        }
    }
}

fn parse_month(text: &str) -> Result<Month, Problem> {
    text.parse().map_err(|error: InvalidMonth| Problem::unprocessable(error.to_string()))
}

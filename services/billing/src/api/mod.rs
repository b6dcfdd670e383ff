//! The service's routes.

pub mod costs;
mod csv;
pub mod question;
pub mod reconciliation;
pub mod rows;
pub mod usage;

use std::sync::Arc;

use axum::{Router, extract::FromRef};
use service_kit::{Problem, Secrets, server};
use sqlx::PgPool;
use utoipa::openapi::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{domain::prices::FlatPrices, projections::ReadError};

/// What the routes need.
#[derive(Clone, FromRef)]
pub struct Api {
    /// The read models.
    pub pool: PgPool,
    /// Who may be believed.
    pub secrets: Secrets,
    /// What usage costs.
    pub prices: Arc<FlatPrices>,
}

/// The routes, and what they look like from outside.
pub fn router(api: Api) -> (Router, OpenApi) {
    let routes = OpenApiRouter::new()
        .routes(routes!(usage::usage))
        .routes(routes!(rows::rows))
        .routes(routes!(costs::costs))
        .routes(routes!(reconciliation::reconciliation));
    routes.layer(server::bounded()).with_state(api).split_for_parts()
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Sql(error) => error.into(),
            ReadError::TooMuch { .. } => Problem::unprocessable(error.to_string()),
        }
    }
}

//! HTTP routes: public ones behind the gateway, internal ones for machines.

mod job_commands;
mod job_configurations;
mod job_queries;
mod machines;
mod ownership;
mod parameters;
mod problems;
mod reads;
mod responses;
pub(crate) mod state;

use axum::{Router, routing::post};
use http_kit::server;
use utoipa::openapi::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use self::state::HttpState;

/// Returns all routes, and the OpenAPI document of the public ones.
pub(crate) fn routes(state: HttpState) -> (Router, OpenApi) {
    let (public, openapi) = OpenApiRouter::new()
        .routes(routes!(job_configurations::define_job_configuration, job_configurations::list_job_configurations))
        .routes(routes!(
            job_configurations::get_job_configuration,
            job_configurations::revise_job_configuration,
            job_configurations::retire_job_configuration
        ))
        .routes(routes!(job_commands::create_job, job_queries::list_jobs))
        .routes(routes!(job_queries::get_job))
        .routes(routes!(job_queries::list_job_outputs))
        .routes(routes!(job_commands::replace_job_files))
        .routes(routes!(job_commands::queue_job))
        .routes(routes!(job_commands::cancel_job))
        .split_for_parts();
    let internal = Router::new()
        .route("/internal/v1/job/claims", post(machines::claim_job))
        .route("/internal/v1/job/jobs/{job}/started", post(machines::start_job))
        .route("/internal/v1/job/jobs/{job}/heartbeat", post(machines::record_heartbeat))
        .route("/internal/v1/job/jobs/{job}/finished", post(machines::finish_job));
    (public.merge(internal).layer(server::bounded()).with_state(state), openapi)
}

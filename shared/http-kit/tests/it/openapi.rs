//! The OpenAPI document of a router, and the router that serves it.

use axum::{Json, extract::FromRef};
use http_kit::{
    ApiPath, ApiQuery, Caller, Command, CommandResponse, Page, PageQuery, Problem, Secrets, min_version::MinVersion,
    server,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use crate::support::{assert_problem, member, request, secrets, send};

#[derive(Clone, FromRef)]
struct Service {
    secrets: Secrets,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Rename {
    name: String,
}

#[derive(Serialize, ToSchema)]
struct Job {
    id: Uuid,
}

#[utoipa::path(
    post, path = "/jobs/{job}/name", params(("job" = Uuid, Path)), request_body = Rename,
    responses((status = 200, body = CommandResponse), (status = 409, body = Problem))
)]
async fn rename(ApiPath(job): ApiPath<Uuid>, command: Command<Rename>) -> Result<CommandResponse, Problem> {
    Err(Problem::conflict(format!("{job} cannot be renamed to {}", command.body.name)))
}

#[utoipa::path(get, path = "/jobs", params(PageQuery, MinVersion), responses((status = 200, body = Page<Job>)))]
async fn list(
    _caller: Caller,
    ApiQuery(page): ApiQuery<PageQuery>,
    ApiQuery(_min): ApiQuery<MinVersion>,
) -> Result<Json<Page<Job>>, Problem> {
    let rows = vec![Job { id: Uuid::nil() }];
    Ok(Json(Page::of(rows, page.limit()?, |job| job.id)?))
}

#[tokio::test]
async fn document_describes_bodies_problems_and_queries() {
    let routes = OpenApiRouter::new().routes(routes!(rename)).routes(routes!(list)).layer(server::bounded());
    let (router, document) = routes.with_state(Service { secrets: secrets() }).split_for_parts();

    let document = serde_json::to_value(document).unwrap();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    for name in ["CommandResponse", "FieldError", "Job", "Page_Job", "Problem", "Rename"] {
        assert!(schemas.contains_key(name), "{name} is not among {:?}", schemas.keys());
    }
    let conflict = &document["paths"]["/jobs/{job}/name"]["post"]["responses"]["409"];
    let body = conflict["content"].as_object().unwrap().values().next().unwrap();
    assert_eq!(body["schema"]["$ref"], "#/components/schemas/Problem");
    let parameters = document["paths"]["/jobs"]["get"]["parameters"].as_array().unwrap();
    let names: Vec<_> = parameters.iter().filter_map(|parameter| parameter["name"].as_str()).collect();
    assert_eq!(names, ["limit", "cursor", "min_version"]);

    let caller = member(Uuid::nil());
    let headers = [("content-type", "application/json"), ("idempotency-key", "k")];
    let path = format!("/jobs/{}/name", Uuid::nil());
    let refused = send(server::finish(router), request(&caller, "POST", &path, &headers, r#"{"name":"x"}"#)).await;
    assert_problem(&refused, 409, "/problems/conflict");
}

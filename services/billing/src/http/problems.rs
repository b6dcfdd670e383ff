//! Problem responses that several routes declare in the OpenAPI document.

use std::collections::BTreeMap;

use http_kit::{Problem, problem};
use utoipa::{
    IntoResponses, ToSchema,
    openapi::{
        ContentBuilder, ObjectBuilder, Ref, RefOr, Response, ResponseBuilder,
        header::HeaderBuilder,
        schema::{SchemaType, Type},
    },
};

type Responses = BTreeMap<String, RefOr<Response>>;

/// Problems of every route.
const ALL_ROUTES: [(u16, &str); 4] = [
    (400, "A path parameter, a query parameter or a header is malformed."),
    (401, "The request has no valid credentials."),
    (429, "The client sent too many requests."),
    (503, "The service cannot reach its database, or is shutting down."),
];

/// Problems of every route that reads an organization's data.
pub(super) struct ReadProblems;

impl IntoResponses for ReadProblems {
    fn responses() -> Responses {
        responses(&[(404, "The organization or the resource does not exist, or the caller is not a member.")])
    }
}

/// Problems of every route that reads data of the platform. Such a route requires the role `operator`.
pub(super) struct OperatorReadProblems;

impl IntoResponses for OperatorReadProblems {
    fn responses() -> Responses {
        responses(&[(403, "The caller is not an operator.")])
    }
}

/// Problems of every command of an operator.
pub(super) struct OperatorCommandProblems;

impl IntoResponses for OperatorCommandProblems {
    fn responses() -> Responses {
        responses(&[
            (400, "The body or a parameter is malformed, or the request has no `Idempotency-Key`."),
            (403, "The caller is not an operator."),
            (413, "The body is too large."),
            (415, "The `Content-Type` is not `application/json`."),
        ])
    }
}

/// Problems of every command of an organization's administrator.
pub(super) struct AdminCommandProblems;

impl IntoResponses for AdminCommandProblems {
    fn responses() -> Responses {
        responses(&[
            (400, "The body, a parameter or a header is malformed."),
            (403, "The caller's role is lower than `admin`."),
            (413, "The body is too large."),
            (415, "The `Content-Type` is not `application/json`."),
        ])
    }
}

/// Returns the problems of all routes together with `additional` ones, which replace those of the same status.
fn responses(additional: &[(u16, &str)]) -> Responses {
    let all = ALL_ROUTES.iter().chain(additional);
    all.map(|(status, description)| (status.to_string(), response(*status, description).into())).collect()
}

fn response(status: u16, description: &str) -> Response {
    let schema = Ref::from_schema_name(Problem::name());
    let content = ContentBuilder::new().schema(Some(schema)).build();
    let response = ResponseBuilder::new().description(description).content(problem::MEDIA_TYPE, content);
    if !matches!(status, 429 | 503) {
        return response.build();
    }
    let seconds = ObjectBuilder::new().schema_type(SchemaType::new(Type::Integer)).build();
    let retry_after =
        HeaderBuilder::new().schema(Some(seconds)).description(Some("Seconds until the next attempt, e.g. `1`."));
    response.header("Retry-After", retry_after.build()).build()
}

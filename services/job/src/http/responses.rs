//! OpenAPI declarations of responses shared by several routes.

use http_kit::{
    CommandResponse,
    openapi::{Responses, content_of, problem_responses, text_header},
};
use utoipa::{IntoResponses, openapi::ResponseBuilder};

const BAD_QUERY: (u16, &str) = (400, "A path or query parameter is malformed or out of range.");
const BAD_COMMAND: (u16, &str) =
    (400, "The body is not valid JSON, a path parameter is malformed, or a POST lacks its `Idempotency-Key`.");
const UNAUTHENTICATED: (u16, &str) = (401, "The API key or session is missing or invalid.");
const NEEDS_MEMBER: (u16, &str) = (403, "The caller lacks the role `member` in this organization.");
const NEEDS_ADMIN: (u16, &str) = (403, "The caller lacks the role `admin` in this organization.");
const NO_ORGANIZATION: (u16, &str) = (404, "The organization does not exist or is not the caller's.");
const NO_CONFIGURATION: (u16, &str) = (404, "The organization has no such job configuration.");
const NO_JOB: (u16, &str) = (404, "The organization has no such job.");
const STALE: (u16, &str) = (412, "`If-Match` differs from the current version.");
const TOO_LARGE: (u16, &str) = (413, "The body is larger than 1 MiB.");
const NOT_JSON: (u16, &str) = (415, "The `Content-Type` is not `application/json`.");
const TOO_MANY_REQUESTS: (u16, &str) = (429, "The caller exceeded its request rate. Retry after `Retry-After`.");
const UNAVAILABLE: (u16, &str) = (503, "The service is temporarily unavailable. Retry after `Retry-After`.");
const NOT_REACHED: (u16, &str) =
    (503, "The read model has not reached `min_version`, or the service is unavailable. Retry after `Retry-After`.");

/// Description of the `ETag` of a command.
const ETAG: &str = "Quoted version, for example `\"3\"`. Send it as `If-Match`, or unquoted as `min_version`.";

/// Problems of a list of an organization.
pub(super) struct ListProblems;

impl IntoResponses for ListProblems {
    fn responses() -> Responses {
        problem_responses(&[BAD_QUERY, UNAUTHENTICATED, NO_ORGANIZATION, TOO_MANY_REQUESTS, UNAVAILABLE])
    }
}

/// Problems of a read of one job configuration.
pub(super) struct ReadJobConfigurationProblems;

impl IntoResponses for ReadJobConfigurationProblems {
    fn responses() -> Responses {
        problem_responses(&[BAD_QUERY, UNAUTHENTICATED, NO_CONFIGURATION, TOO_MANY_REQUESTS, NOT_REACHED])
    }
}

/// Problems of a read of one job.
pub(super) struct ReadJobProblems;

impl IntoResponses for ReadJobProblems {
    fn responses() -> Responses {
        problem_responses(&[BAD_QUERY, UNAUTHENTICATED, NO_JOB, TOO_MANY_REQUESTS, NOT_REACHED])
    }
}

/// Problems of a command that creates a job configuration.
pub(super) struct DefineJobConfigurationProblems;

impl IntoResponses for DefineJobConfigurationProblems {
    fn responses() -> Responses {
        command_problems(&[NEEDS_ADMIN, NO_ORGANIZATION])
    }
}

/// Problems of a command to an existing job configuration.
pub(super) struct JobConfigurationCommandProblems;

impl IntoResponses for JobConfigurationCommandProblems {
    fn responses() -> Responses {
        command_problems(&[NEEDS_ADMIN, NO_CONFIGURATION, STALE])
    }
}

/// Problems of a command that creates a job.
pub(super) struct CreateJobProblems;

impl IntoResponses for CreateJobProblems {
    fn responses() -> Responses {
        command_problems(&[NEEDS_MEMBER, NO_ORGANIZATION])
    }
}

/// Problems of a command to an existing job.
pub(super) struct JobCommandProblems;

impl IntoResponses for JobCommandProblems {
    fn responses() -> Responses {
        command_problems(&[NEEDS_MEMBER, NO_JOB, STALE])
    }
}

/// The 200 response of a command to an existing aggregate.
pub(super) struct ChangedResponse;

impl IntoResponses for ChangedResponse {
    fn responses() -> Responses {
        let response = ResponseBuilder::new()
            .description("Accepted. The body and `ETag` contain the version after the command.")
            .header("ETag", text_header(ETAG))
            .content("application/json", content_of::<CommandResponse>());
        Responses::from([("200".to_owned(), response.build().into())])
    }
}

fn command_problems(specific: &[(u16, &str)]) -> Responses {
    let mut responses =
        problem_responses(&[BAD_COMMAND, UNAUTHENTICATED, TOO_LARGE, NOT_JSON, TOO_MANY_REQUESTS, UNAVAILABLE]);
    responses.append(&mut problem_responses(specific));
    responses
}

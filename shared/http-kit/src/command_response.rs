//! The response to a command: id and version, as JSON and as `ETag`.
//!
//! Clients pass the version on, as `If-Match` to the next command or as `min_version` to a read. A repeated command gets the
//! response of its first execution.

use axum::{
    Json,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use epoch::{ExecutionOutcome, Version};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// Formats a version as an `ETag`.
#[must_use]
pub fn etag(version: Version) -> String {
    format!("\"{version}\"")
}

/// `{ "id", "version" }` with the version as `ETag`. The status is 201 with `Location` for a creation, otherwise 200.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CommandResponse {
    /// The id of the changed resource.
    pub id: Uuid,
    /// The version after the command, e.g. `7`. Pass it to reads as `min_version`.
    #[schema(value_type = u64)]
    pub version: Version,
    #[serde(skip)]
    location: Option<String>,
}

impl CommandResponse {
    /// Returns a 201. `location` returns the path of the new resource for its id.
    #[must_use]
    pub fn created(executed: &ExecutionOutcome, location: impl FnOnce(Uuid) -> String) -> Self {
        Self { location: Some(location(executed.aggregate_id)), ..executed.clone().into() }
    }
}

impl From<ExecutionOutcome> for CommandResponse {
    fn from(executed: ExecutionOutcome) -> Self {
        Self { id: executed.aggregate_id, version: executed.version, location: None }
    }
}

impl IntoResponse for CommandResponse {
    fn into_response(self) -> Response {
        let etag = [(header::ETAG, etag(self.version))];
        match self.location.clone() {
            Some(location) => (StatusCode::CREATED, [(header::LOCATION, location)], etag, Json(self)).into_response(),
            None => (etag, Json(self)).into_response(),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use epoch::{ExecutionOutcome, Version};
    use uuid::Uuid;

    use super::CommandResponse;

    #[test]
    fn repeated_creation_returns_location_of_the_first() {
        let first = Uuid::from_u128(1);
        let executed = ExecutionOutcome { aggregate_id: first, version: Version::new(1), appended: 0, repeated: true };
        let response = CommandResponse::created(&executed, |id| format!("/jobs/{id}")).into_response();
        assert_eq!(response.status(), 201);
        assert_eq!(response.headers()["location"], format!("/jobs/{first}"));
        assert_eq!(response.headers()["etag"], "\"1\"");
    }

    #[test]
    fn change_is_200_without_location() {
        let executed =
            ExecutionOutcome { aggregate_id: Uuid::nil(), version: Version::new(2), appended: 1, repeated: false };
        let response = CommandResponse::from(executed).into_response();
        assert_eq!(response.status(), 200);
        assert!(!response.headers().contains_key("location"));
    }
}

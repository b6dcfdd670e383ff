//! From what a command came to, to a response.
//!
//! The problem: a client that changed something wants to read it as it is now, and to change it again.
//!
//! The invariant: every command answers with the version it led to, as `ETag` for `If-Match` and in the body for
//! `min_version`; a command that comes again is answered as the first time.

use axum::{
    Json,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use epoch::{ExecutionOutcome, Version};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// A version as an `ETag`.
#[must_use]
pub fn etag(version: Version) -> String {
    format!("\"{version}\"")
}

/// What a command came to: `{ "id", "version" }` with the version as `ETag`; 201 with `Location` for a creation, else 200.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Changed {
    /// What changed.
    pub id: Uuid,
    /// Its version after the command; reads take it as `min_version`.
    #[schema(value_type = u64)]
    pub version: Version,
    #[serde(skip)]
    location: Option<String>,
}

impl Changed {
    /// Something new, which is now at the path that `location` gives for its id.
    #[must_use]
    pub fn created(executed: &ExecutionOutcome, location: impl FnOnce(Uuid) -> String) -> Self {
        Self { location: Some(location(executed.aggregate_id)), ..executed.clone().into() }
    }
}

impl From<ExecutionOutcome> for Changed {
    fn from(executed: ExecutionOutcome) -> Self {
        Self { id: executed.aggregate_id, version: executed.version, location: None }
    }
}

impl IntoResponse for Changed {
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

    use super::Changed;

    #[test]
    fn a_repeated_creation_points_at_what_the_first_one_created() {
        let first = Uuid::from_u128(1);
        let executed = ExecutionOutcome { aggregate_id: first, version: Version::new(1), appended: 0, repeated: true };
        let response = Changed::created(&executed, |id| format!("/jobs/{id}")).into_response();
        assert_eq!(response.status(), 201);
        assert_eq!(response.headers()["location"], format!("/jobs/{first}"));
        assert_eq!(response.headers()["etag"], "\"1\"");
    }

    #[test]
    fn a_change_is_200_without_location() {
        let executed =
            ExecutionOutcome { aggregate_id: Uuid::nil(), version: Version::new(2), appended: 1, repeated: false };
        let response = Changed::from(executed).into_response();
        assert_eq!(response.status(), 200);
        assert!(!response.headers().contains_key("location"));
    }
}

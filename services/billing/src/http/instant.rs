//! Instants in request bodies and query strings.

use epoch::{Timestamp, timestamp::ParseTimestampError};
use http_kit::Problem;

/// Parses an instant in a request body.
///
/// # Errors
/// 422 at `pointer` for text that is not an instant.
pub(super) fn body_instant(pointer: &'static str, text: &str) -> Result<Timestamp, Problem> {
    let invalid = |error: ParseTimestampError| {
        Problem::unprocessable(format!("{text:?} is {error}")).at(pointer, error.to_string())
    };
    text.parse().map_err(invalid)
}

/// Parses an instant in a query string, or returns `None` for an absent parameter.
///
/// # Errors
/// 400 for text that is not an instant.
pub(super) fn query_instant(name: &str, text: Option<&str>) -> Result<Option<Timestamp>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let malformed = |error| {
        Problem::bad_request(format!("{name} is {error}"))
            .of_kind("/problems/malformed-query", "malformed query string")
    };
    text.parse().map(Some).map_err(malformed)
}

//! Instants in bodies and query strings.

use epoch::{Timestamp, timestamp::ParseTimestampError};
use http_kit::Problem;

/// An instant in a body; `None` when it isn't said.
pub(super) fn instant(pointer: &'static str, text: Option<&str>) -> Result<Option<Timestamp>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let refused = |error: ParseTimestampError| {
        Problem::unprocessable(format!("{text:?} is {error}")).at(pointer, error.to_string())
    };
    text.parse().map(Some).map_err(refused)
}

/// An instant in a query string; `None` when it isn't said.
pub(super) fn said(name: &str, text: Option<&str>) -> Result<Option<Timestamp>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let malformed = |error| {
        Problem::bad_request(format!("{name} is {error}"))
            .of_kind("/problems/malformed-query", "malformed query string")
    };
    text.parse().map(Some).map_err(malformed)
}

//! The query string of an explanation.

use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

/// The query string of an explanation.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct ExplanationQuery {
    /// A day of the month whose intervals and events are listed (default: none).
    #[param(example = "2026-03-29")]
    pub(super) date: Option<String>,
    /// Leaves out all events that were recorded after this instant (RFC 3339). Default: the instant at which the invoice was
    /// finalized; all recorded events count for a draft.
    #[param(example = "2026-04-02T00:00:00Z")]
    pub(super) known_at: Option<String>,
    /// The `next_file` of the previous response (default: the first files).
    #[param(example = "019a1f00-0000-7000-8000-000000000000")]
    pub(super) after_file: Option<Uuid>,
    /// The `next_job` of the previous response (default: the first jobs).
    #[param(example = "019a1f00-0000-7000-8000-000000000000")]
    pub(super) after_job: Option<Uuid>,
}

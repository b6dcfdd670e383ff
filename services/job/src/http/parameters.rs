//! Path parameters shared by several routes.

use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct JobConfigurationPath {
    /// Organization id.
    #[param(example = "0198c0de-0000-7000-8000-000000000001")]
    pub(super) org: Uuid,
    /// Job configuration id.
    #[param(example = "0198c5a4-02b7-7a51-8c6d-91d2f0a4b7e3")]
    pub(super) configuration: Uuid,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct JobPath {
    /// Organization id.
    #[param(example = "0198c0de-0000-7000-8000-000000000001")]
    pub(super) org: Uuid,
    /// Job id.
    #[param(example = "0198c5a9-6e40-7f12-b3a8-0c55d7e91f26")]
    pub(super) job: Uuid,
}

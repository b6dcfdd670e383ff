//! Path parameters of the public routes.

use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

/// Path of one member.
#[derive(Debug, Clone, Copy, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct MemberPath {
    /// Organization id.
    #[param(example = "0198c0de-0000-7000-8000-000000000001")]
    pub(super) org: Uuid,
    /// User id of the member.
    #[param(example = "0198c0de-0000-7000-8000-000000000002")]
    pub(super) user: Uuid,
}

/// Path of one API key.
#[derive(Debug, Clone, Copy, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct ApiKeyPath {
    /// Organization id.
    #[param(example = "0198c0de-0000-7000-8000-000000000001")]
    pub(super) org: Uuid,
    /// API key id.
    #[param(example = "0198c0de-0000-7000-8000-000000000003")]
    pub(super) key: Uuid,
}

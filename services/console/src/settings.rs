//! Settings of the gateway.

use http_kit::Secrets;
use service_host::health::Health;

use crate::{admin_key::AdminKey, upstreams::Upstreams};

#[derive(Clone)]
pub struct Settings {
    pub secrets: Secrets,
    pub admin_key: AdminKey,
    pub upstreams: Upstreams,
    /// Checks of this process, which include those of the services in it.
    pub health: Health,
    /// Names and values that the status page shows, such as ("Bus", "Apache Kafka"). The page is public.
    pub runs_on: Vec<(String, String)>,
    /// Limit of concurrent requests. The gateway answers 503 above it.
    pub max_open_requests: usize,
}

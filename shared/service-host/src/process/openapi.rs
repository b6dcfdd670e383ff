//! The OpenAPI document of a service, which the console reads from an internal route.

use axum::{
    Router,
    http::{HeaderMap, header},
    routing::get,
};
use http_kit::{Caller, Problem, Role, Secrets, server};
use utoipa::openapi::{Info, OpenApi, info::LicenseBuilder};

use crate::service::{Service, ServiceError};

/// Returns the document's `info`. The default would name the library.
pub(super) fn info(service: &str) -> Info {
    const LICENCE: &str = "Apache-2.0";
    let title = format!("Catacloud {service}");
    let mut info = Info::new(title.as_str(), env!("CARGO_PKG_VERSION"));
    info.license = Some(LicenseBuilder::new().name(LICENCE).identifier(Some(LICENCE)).build());
    info
}

/// Returns the path at which the console reads the OpenAPI document of a service.
#[must_use]
pub fn openapi_path(service: &str) -> String {
    format!("/internal/v1/{service}/openapi.json")
}

pub(super) fn openapi_route<S: Service>(openapi: &OpenApi, secrets: &Secrets) -> Result<Router, ServiceError> {
    let document = bytes::Bytes::from(openapi.to_json().map_err(ServiceError::failed)?);
    let secrets = secrets.clone();
    let respond = async move |headers: HeaderMap| {
        Caller::from_headers(&headers, &secrets)?.at_least(Role::Service)?;
        Ok::<_, Problem>(([(header::CONTENT_TYPE, "application/json")], document))
    };
    Ok(Router::new().route(&openapi_path(S::NAME), get(respond)).layer(server::bounded()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn info_names_the_service() {
        let expected = json!({
            "title": "Catacloud job", "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        });
        assert_eq!(serde_json::to_value(super::info("job")).unwrap(), expected);
    }
}

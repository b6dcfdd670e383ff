//! The organization service: organizations, their members and roles, API keys, and the storage total.
//!
//! Members and the storage total are an aggregate, because other services consume its events. Users and API keys are
//! plain tables: no other service may read them, and a revocation takes effect at once instead of through a projection.

pub mod domain;
pub mod http;
pub mod projections;
mod queries;
pub mod sagas;
mod tables;

use std::sync::Arc;

use epoch::Repository;
use epoch_postgres::ProjectionHandler;
use service_host::{
    event_type::EventType,
    service::{Service, ServiceContext, ServiceError, ServiceParts},
};
use sqlx::migrate::Migrator;

use crate::{domain::Organization, http::HttpState, projections::Organizations, sagas::StorageUsage};

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

pub struct OrganizationService;

impl Service for OrganizationService {
    const NAME: &'static str = "organization";
    const PORT: u16 = 8081;

    fn migrations() -> &'static Migrator {
        &MIGRATIONS
    }

    fn schemas() -> Vec<&'static str> {
        contracts::schemas()
    }

    fn events() -> Vec<EventType> {
        vec![EventType::of::<contracts::organization::OrganizationEvent>(contracts::organization::AGGREGATE)]
    }

    fn assemble(host: &ServiceContext) -> Result<ServiceParts, ServiceError> {
        let organizations = Repository::<Organization, _>::new(host.store.clone());
        let (router, openapi) = http::router(HttpState::new(host, organizations.clone()));
        Ok(ServiceParts {
            router,
            openapi,
            handlers: vec![Arc::new(ProjectionHandler(Organizations)), Arc::new(StorageUsage::new(organizations))],
            sagas: Vec::new(),
            tasks: Vec::new(),
        })
    }
}

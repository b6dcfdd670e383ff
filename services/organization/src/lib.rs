//! Organizations: who belongs to one, what they may do, how they show who they are, and how much it stores.
//!
//! Membership and storage are an aggregate, since other services follow their events. Users and API keys are plain tables:
//! nobody else may see them, and a key must stop working the moment it is revoked.

pub mod domain;
pub mod http;
pub mod projections;
pub mod sagas;
mod tables;

use std::sync::Arc;

use epoch::Repository;
use service_kit::{
    operate::EventType,
    service::{Assembled, Host, Service, ServiceError},
};
use sqlx::migrate::Migrator;

use crate::{domain::Organization, http::Api, projections::Organizations, sagas::StorageUsage};

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// The organization service.
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

    fn assemble(host: &Host) -> Result<Assembled, ServiceError> {
        let organizations = Repository::<Organization, _>::new(host.store.clone());
        let (router, openapi) = http::router(Api::new(host, organizations.clone()));
        Ok(Assembled {
            router,
            openapi,
            handlers: vec![Arc::new(Organizations), Arc::new(StorageUsage::new(organizations))],
            sagas: Vec::new(),
            tasks: Vec::new(),
        })
    }
}

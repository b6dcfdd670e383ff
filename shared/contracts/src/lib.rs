//! The events of every aggregate: the contracts between services.
//!
//! Services are deployed independently, and events that were written years ago are still read. The schema file
//! `schemas/<aggregate>/<Event>.avsc` is therefore the source of truth of an event, not the code of a service. Tests check that each
//! type here encodes with its schema and decodes to itself, and that each schema resolves against all its earlier versions in both
//! directions.
//!
//! A payload omits the aggregate id, the times and the actor, which are part of the [`Envelope`](epoch::Envelope).
//!
//! # Changing an event
//!
//! 1. Copy its schema to `<Event>.<n>.avsc`, where n is the next number, counted from 1.
//! 2. Change `<Event>.avsc`. Only fields with a default may be added or removed.
//! 3. Change the struct.
//! 4. List the copy after the current schema in `events!`. Otherwise, events written with the copy become unreadable.
//!
//! A change of documentation needs no copy.
//!
//! A change that violates these rules requires a new event. The schema of the former event stays in place. In `events!` it moves to
//! `upcast` or `split`, with a function that converts it into current events.

/// Expands to the text of `schemas/<path>.avsc`.
macro_rules! schema {
    ($path:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../schemas/", $path, ".avsc"))
    };
}

pub mod billing_account;
pub mod file;
pub mod invoice;
pub mod job;
pub mod job_configuration;
pub mod organization;
pub mod plan;

use epoch::DomainEvent;

/// Returns the current and earlier schemas of all events as JSON documents, for registration in a schema registry.
#[must_use]
pub fn schemas() -> Vec<&'static str> {
    [
        organization::OrganizationEvent::SCHEMAS,
        job_configuration::JobConfigurationEvent::SCHEMAS,
        file::FileEvent::SCHEMAS,
        job::JobEvent::SCHEMAS,
        plan::PlanEvent::SCHEMAS,
        billing_account::BillingAccountEvent::SCHEMAS,
        invoice::InvoiceEvent::SCHEMAS,
    ]
    .concat()
    .concat()
}

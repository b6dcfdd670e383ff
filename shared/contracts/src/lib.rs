//! The events of every aggregate: what services tell each other.
//!
//! The problem: services are built and deployed one by one, and an event that was written years ago is still read. What
//! is in an event can't be what one service's code happens to say today.
//!
//! The invariant: `schemas/<aggregate>/<Event>.avsc` is written first and says what an event is; each type here encodes with its
//! schema and decodes to itself, and each schema resolves, both ways, against every version it ever had.
//!
//! Payloads don't have the aggregate's id, the times or the actor: those are in the [`Envelope`](epoch::Envelope).
//!
//! To change an event: copy its schema to `<Event>.<n>.avsc`, n being the next number from 1; change `<Event>.avsc` (only
//! fields with a default may come or go); change the struct; and list the copy behind today's schema in `events!`, or what
//! was written with it can't be read any more. A change of documentation needs no copy. Tests watch over all of it.
//!
//! A change that these rules forbid makes another event. The former one's schema stays where it is; in `events!` it moves to
//! `upcast` or `split`, with a function that tells what it is today.

/// The text of `schemas/<path>.avsc`.
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

/// All schemas that events are or were written with, as JSON documents; a schema registry is told of those that are used.
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

//! Billing from outside: events in over the bus, answers out of the router.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod accounts;
mod answers;
mod bad_input;
mod budgets;
mod busy_files;
mod copies;
mod corrections;
mod costs;
mod delivery;
mod drafts;
mod explained;
mod finalize;
mod focus;
mod golden;
mod ledger;
mod machine_types;
mod metering;
mod opening;
mod organizations;
mod pairing;
mod rate;
mod rate_properties;
mod rate_refusals;
mod rebuild;
mod reconciliation;
mod rows;
mod scenario;
mod simulations;
mod standard;
mod support;
mod upgrade;
mod usage;

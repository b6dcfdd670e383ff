//! Integration tests of billing: events come in over the bus, responses come out of the router.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod account_opening;
mod accounts;
mod budgets;
mod corrections;
mod costs;
mod customer_scenario;
mod delivery;
mod explanation;
mod files_with_rollups;
mod finalization;
mod focus_export;
mod golden;
mod invoice_drafts;
mod invoices;
mod machine_types;
mod metering;
mod plans;
mod query_plans;
mod query_validation;
mod rate_command;
mod rate_properties;
mod rate_validation;
mod read_models;
mod rebuild;
mod reconciliation_accounts;
mod reconciliation_copy;
mod reconciliation_metric;
mod reconciliation_report;
mod reconciliation_rollups;
mod rolling_upgrade;
mod run_pairing;
mod simulations;
mod standard_plan;
mod support;
mod tenant_isolation;
mod usage_api;
mod usage_queries;
mod usage_rows;

//! Billing rules as pure functions: money, calendar, metering, pricing and rating.
//!
//! There is no clock, no database and no float. Callers pass deduplicated events, the period, and the instant
//! of evaluation. The service and the offline calculator ([`calculator`]) call the same functions, so ids are
//! of any ordered type.

pub mod account;
pub mod calculator;
pub mod calendar;
pub mod invoice;
pub mod metering;
pub mod money;
pub mod pricing;
pub mod rating;
pub mod sharing;
pub mod validation;

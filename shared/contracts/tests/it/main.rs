//! Consistency of the Rust types with the schemas, and compatibility of the schemas with their earlier versions.

#![allow(clippy::unwrap_used, clippy::panic)]

mod catalog;
mod compatibility;
mod conventions;
mod history;
mod personal_data;
mod round_trips;

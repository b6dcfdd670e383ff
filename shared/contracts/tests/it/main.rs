//! Whether the Rust types and the schemas say the same, and whether today's schemas fit those of the past.

#![allow(clippy::unwrap_used, clippy::panic)]

mod catalog;
mod compatibility;
mod conventions;
mod history;
mod personal_data;
mod round_trips;

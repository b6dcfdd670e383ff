//! Spans of time, and the days, months and slots of a time zone.

pub mod day;
pub mod month;
pub mod slot;
pub mod span;

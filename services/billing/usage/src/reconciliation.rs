//! Whether the numbers that answers are read from are what the owners' events make.
//!
//! The problem: a sum that went wrong, by a fault in the code, in the database or by somebody's hand, looks like any other number.
//!
//! The invariant: three comparisons go on all the time, and together they go from an answer to the events. The sums are compared with what
//! the plain functions make of billing's own copy of the streams (`storage_changes` and `job_moments`, a row an event), in
//! one snapshot, so that events that arrive meanwhile are no difference. The [copy] is compared with what the services have whose events
//! they are. The read models of [accounts], plans and invoices are compared with billing's own log. Of the sums, each step takes the next organization; each round takes another 32 days of it and other files and
//! jobs, and what was wrong before; the types of machines are looked at between two
//! rounds, all of them. Widths are compared with each other and files with
//! the organization, all of them, so that what a sample of one misses another has. Differences stay on record until a later check
//! finds the row right; nothing is repaired silently.

pub mod accounts;
pub mod copy;
mod difference;
mod due;
mod recompute;
pub mod rollups;
pub mod step;

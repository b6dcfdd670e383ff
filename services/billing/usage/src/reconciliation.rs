//! Reconciliation: continuous comparison of the read models with the events they are derived from.
//!
//! A wrong sum, caused by a fault in the code or in the database or by a manual edit, looks like any other
//! number. Three comparisons together cover the path from a report back to the events:
//!
//! - [Rollups](rollups) are compared with a recomputation from billing's copy of the events (`storage_changes`
//!   and `job_moments`, one row an event).
//! - The [copy] is compared with the streams of the services that own the events.
//! - The read models of [accounts], plans and invoices are compared with billing's own event log.
//!
//! Each comparison reads one snapshot, so that events that arrive meanwhile are no difference. A step of the
//! rollup comparison takes the next organization: all of its widths, 32 days of its buckets, a sample of its
//! files and jobs, and everything that was wrong before. Each round takes another 32 days and another sample,
//! and compares all machine types at its end. Widths are compared with each other, and all files with the
//! organization, so that an error outside the sample shows, too. Differences stay on record until a later
//! check finds the row correct; nothing is repaired silently.

pub mod accounts;
pub mod copy;
mod difference;
mod due;
mod recompute;
pub mod rollups;
pub mod step;

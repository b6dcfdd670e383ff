//! Queries about usage, answered from the read models.
//!
//! A report combines several tables while events keep arriving, some of them late, and an earlier state of
//! knowledge (`known_at`) must stay reproducible.
//!
//! Invariant: a report reads one consistent state, in one statement if everything is known
//! ([`usage_statement`]). Totals come from rollups, so they cost days, not events, and anomalies never
//! prevent them. For an earlier `known_at`, later records are subtracted from the rollups, which costs as
//! much as there are such records. Listed files with later records are computed from all of their changes.
//! For jobs with later records, the runs are paired again from the moments known at that time.
//!
//! The user of a job, which some sharing rules need, comes from its creation, its first event, which never
//! changes. So repeating a query yields the same users, except that a job has no user until its creation
//! arrives.
//!
//! A projection may be rebuilt meanwhile. One statement sees its tables either before or after the swap. A
//! transaction of several statements locks the tables first. Otherwise it could see a swapped table without
//! the rows that are newer than its snapshot.

mod evaluation;
pub mod file_levels;
pub mod groups;
mod late_records;
pub mod origins;
mod read_spans;
pub mod snapshot;
pub mod usage;
pub mod usage_by_term;
pub mod usage_query;
pub mod usage_statement;

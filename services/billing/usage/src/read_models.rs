//! Projections of file, job and billing events: usage, and lists of accounts, plans and invoices.

pub mod accounts;
pub mod file_links;
pub mod runs;
pub mod storage_changes;

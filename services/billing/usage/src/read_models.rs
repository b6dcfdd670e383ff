//! Projections of other services' events: what is metered of files and jobs, and lists of accounts, plans and invoices.

pub mod accounts;
pub mod file_links;
pub mod runs;
pub mod storage_changes;

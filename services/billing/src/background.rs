//! Background work: budgets, opening accounts, and reconciliation.

pub mod budgets;
pub mod open_accounts;
pub mod reconciliation;

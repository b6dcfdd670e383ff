//! The ledger: amounts from usage, plans and accounts.
//!
//! Drafts, finalized invoices, budgets and simulations must agree on every amount. So each amount is computed from
//! [`Ledger::month_usage`](ledger::Ledger::month_usage) and the terms of the account by the pure functions of `rating`. The ledger
//! has its own clock, which tests can set.

mod context;
pub mod draft;
pub mod error;
pub mod finalize;
pub mod ledger;
pub mod month_usage;
pub mod open;
pub mod simulation;

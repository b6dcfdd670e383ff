//! The ledger: usage, plans and accounts, brought together.
//!
//! The problem: an amount is asked for in many ways (a draft, a final invoice, a budget, "what would this plan have cost?") and
//! must be the same in all of them.
//!
//! The invariant: every amount comes from what [`Ledger::used`] reads of usage, at the terms of the account, and the pure functions of
//! the domain. The clock is the ledger's own, so that a test can move it.

pub mod draft;
pub mod error;
pub mod finalize;
pub mod ledger;
pub mod month_usage;
pub mod open;
pub mod simulation;

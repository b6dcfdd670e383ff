//! Exact amounts of money, and their allocation.

pub mod allocation;
pub mod amount;
pub mod currency;
pub mod decimal;
pub mod exact;

//! Rating: from usage by term to invoice lines and totals.

pub mod allocation;
pub mod explain;
pub mod forecast;
pub mod rate;
pub mod term;
pub mod usage_amounts;

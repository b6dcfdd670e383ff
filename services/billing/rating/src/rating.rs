//! From usage to invoice lines and sums.

pub mod allocation;
pub mod explain;
pub mod forecast;
pub mod rate;
pub mod term;
pub mod usage_amounts;

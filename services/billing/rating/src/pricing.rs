//! Meters, price models and plans.

pub mod components;
pub mod meter;
pub mod plan;
pub mod plan_aggregate;
pub mod price_item;
pub mod price_model;
pub mod standard_plan;

//! What happens to a plan: what customers are charged.
//!
//! The problem: a price that changes under a customer is a broken promise.
//!
//! The invariant: a version has all its prices in one event and never changes afterwards; numbers count from 1.

use serde::{Deserialize, Serialize};

/// The aggregate's name.
pub const AGGREGATE: &str = "plan";

epoch::events! {
    /// What happens to a plan.
    pub enum PlanEvent {
        PlanPublished = [schema!("plan/PlanPublished")],
        PlanRetired = [schema!("plan/PlanRetired")],
    }
}

/// What a meter costs. What doesn't belong to the model is `None`. Numbers are decimals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charge {
    /// `storage` or `compute`.
    pub meter: String,
    /// `GB.h` (10⁹ bytes) or `GiB.h` (2³⁰ bytes) for storage, `s` for compute.
    pub unit: String,
    /// `graduated`, `volume`, `package` or `flat`.
    pub model: String,
    /// For `graduated` and `volume`, ascending; the last has no bound.
    pub tiers: Option<Vec<Tier>>,
    /// For `flat`.
    pub unit_price: Option<String>,
    /// For `package` and `flat`: how much is free.
    pub free: Option<String>,
    /// For `package`.
    pub package_size: Option<String>,
    /// For `package`.
    pub package_price: Option<String>,
}

/// A range of quantities.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tier {
    /// The last quantity in it; `None` for the last tier.
    pub up_to: Option<String>,
    /// The price of a unit.
    pub unit_price: String,
    /// Due once when the tier is entered (graduated) or reached (volume).
    pub flat_fee: Option<String>,
}

/// A version of a plan was published. It never changes afterwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanPublished {
    /// Its number: 1, then 2, and so on.
    pub plan_version: i32,
    /// What people call the plan.
    pub name: String,
    /// What all prices are in, as a code of ISO 4217.
    pub currency: String,
    /// How files are shared by the jobs that use them: `split` or `unshared_only`.
    pub split: String,
    /// What each meter costs; a meter that isn't listed costs nothing.
    pub charges: Vec<Charge>,
    /// What a month costs at least, before tax.
    pub minimum: Option<String>,
    /// Hundredths that are put on as tax.
    pub tax_percent: Option<String>,
}

/// Nobody new gets the plan, and it gets no new versions. Who has it keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanRetired {
    /// Why.
    pub reason: String,
}

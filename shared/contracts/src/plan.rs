//! Events of plans: the prices that customers are charged.
//!
//! One event carries all prices of a plan version. A version is immutable, and versions are counted from 1.

use serde::{Deserialize, Serialize};

/// The name of the aggregate.
pub const AGGREGATE: &str = "plan";

epoch::events! {
    /// An event of a plan.
    pub enum PlanEvent {
        PlanPublished = [schema!("plan/PlanPublished")],
        PlanRetired = [schema!("plan/PlanRetired")],
    }
}

/// Price of a meter. Fields of other price models are `None`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charge {
    /// Key of the meter: `storage` or `compute`.
    pub meter: String,
    /// Unit of the price: `GB.h` (10⁹ bytes) or `GiB.h` (2³⁰ bytes) for storage, `s` for compute.
    pub unit: String,
    /// Price model: `graduated`, `volume`, `package` or `flat`.
    pub model: String,
    /// Tiers of `graduated` and `volume`, ascending; the last tier is unbounded.
    pub tiers: Option<Vec<Tier>>,
    /// Price per unit of `flat`, as a decimal.
    pub unit_price: Option<String>,
    /// Free quantity of `package` and `flat`, as a decimal.
    pub free: Option<String>,
    /// Quantity in a package, as a decimal.
    pub package_size: Option<String>,
    /// Price of a package, as a decimal.
    pub package_price: Option<String>,
}

/// Price of a range of quantities.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tier {
    /// Upper bound of the tier, inclusive, as a decimal; `None` for the last tier.
    pub up_to: Option<String>,
    /// Price per unit, as a decimal.
    pub unit_price: String,
    /// Fee charged once when the tier is entered (graduated) or reached (volume), as a decimal; `None` for none.
    pub flat_fee: Option<String>,
}

/// A version of a plan was published. It is immutable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanPublished {
    /// Version number, counted from 1.
    pub plan_version: i32,
    pub name: String,
    /// Currency of all prices, as an ISO 4217 code.
    pub currency: String,
    /// How jobs share the cost of linked files: `split` or `unshared_only`.
    pub split: String,
    /// Prices of the meters; a meter that is not listed is free.
    pub charges: Vec<Charge>,
    /// Minimum cost of a month before tax, as a decimal; `None` for none.
    pub minimum: Option<String>,
    /// Tax in percent, as a decimal; `None` for none.
    pub tax_percent: Option<String>,
}

/// The plan was retired: it accepts no new accounts and no new versions. Existing accounts keep it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanRetired {
    pub reason: String,
}

//! Prices of meters in request bodies, in the format that `billing rate` reads.

use rating::{
    money::decimal::Decimal,
    pricing::components::{ChargeDefinition, TierDefinition},
};
use serde::Deserialize;
use utoipa::ToSchema;

/// The price of one meter. The model determines the other fields:
/// - `flat`: `unit_price`, and optionally `free`.
/// - `package`: `package_size` and `package_price`, and optionally `free`.
/// - `graduated` and `volume`: `tiers`.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ChargeRequest {
    /// `storage` or `compute`.
    #[schema(pattern = "^(storage|compute)$", example = "storage")]
    meter: String,
    /// `GB.h` (10⁹ bytes for one hour) or `GiB.h` (2³⁰ bytes for one hour) for storage, `s` for compute.
    #[schema(pattern = "^(GB\\.h|GiB\\.h|s)$", example = "GB.h")]
    unit: String,
    /// `flat`: each unit has the same price. `package`: started packages are charged. `graduated`: each unit has the price of its
    /// tier. `volume`: all units have the price of the tier that the whole quantity reaches.
    #[schema(pattern = "^(flat|package|graduated|volume)$", example = "flat")]
    model: String,
    /// At most 100 tiers with ascending bounds. The last has none.
    #[serde(default)]
    tiers: Option<Vec<TierRequest>>,
    /// The price of each unit.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "0.0001")]
    unit_price: Option<Decimal>,
    /// The number of free units, which count first (default: 0).
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "10")]
    free: Option<Decimal>,
    /// The number of units in a package.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "100")]
    package_size: Option<Decimal>,
    /// The price of a package.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "1.50")]
    package_price: Option<Decimal>,
}

/// A tier of a price.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TierRequest {
    /// The largest quantity in the tier, inclusive. Null for the last tier.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "1000")]
    up_to: Option<Decimal>,
    /// The price of each unit.
    #[schema(value_type = String, example = "0.0001")]
    unit_price: Decimal,
    /// A fee that is due once when usage reaches the tier (default: 0).
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "5.00")]
    flat_fee: Option<Decimal>,
}

impl From<ChargeRequest> for ChargeDefinition {
    fn from(charge: ChargeRequest) -> Self {
        Self {
            meter: charge.meter,
            unit: charge.unit,
            model: charge.model,
            tiers: charge.tiers.map(|tiers| tiers.into_iter().map(TierDefinition::from).collect()),
            unit_price: charge.unit_price,
            free: charge.free,
            package_size: charge.package_size,
            package_price: charge.package_price,
        }
    }
}

impl From<TierRequest> for TierDefinition {
    fn from(tier: TierRequest) -> Self {
        Self { up_to: tier.up_to, unit_price: tier.unit_price, flat_fee: tier.flat_fee }
    }
}

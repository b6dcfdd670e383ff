//! Usage rows: one for each key and each slot of the period.

use std::collections::BTreeMap;

use rating::{
    calendar::slot::Slot,
    pricing::meter::{Quantity, Unit},
};
use usage::queries::groups::Usage;
use uuid::Uuid;

/// The largest number of rows in a response: a year of hours fits, and so do 200 keys in 100 slots.
pub const MAX_ROWS: usize = 20_000;

/// Usage of one key in one slot of the period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UsageRow {
    pub(crate) slot: Slot,
    /// An id, or the name of a machine type. `None` for usage without a key.
    pub(crate) key: Option<String>,
    /// `None` where the grouping does not cover storage.
    pub(crate) byte_ms: Option<i128>,
    /// `None` where the grouping does not cover run time.
    pub(crate) run_ms: Option<i128>,
}

impl UsageRow {
    /// Returns the storage in GB-hours, truncated to 12 decimal places.
    pub(crate) fn gb_hours(&self) -> Option<String> {
        self.byte_ms.map(|metered| Quantity { metered, unit: Unit::GbHour }.to_string())
    }
}

/// Returns one row for each key and each slot. Grouped usage has no rows without usage.
pub(crate) fn usage_rows(
    slots: &[Slot],
    groups: &[(Option<Uuid>, Usage)],
    names: &BTreeMap<Uuid, String>,
    is_grouped: bool,
) -> Vec<UsageRow> {
    let mut rows = Vec::new();
    for (key, usage) in groups {
        let key = key.map(|id| names.get(&id).cloned().unwrap_or_else(|| id.to_string()));
        for (index, slot) in slots.iter().enumerate() {
            let (byte_ms, run_ms) = (usage.byte_ms.get(index).copied(), usage.run_ms.get(index).copied());
            let is_unused = byte_ms.unwrap_or_default() == 0 && run_ms.unwrap_or_default() == 0;
            if is_grouped && is_unused {
                continue;
            }
            rows.push(UsageRow { slot: slot.clone(), key: key.clone(), byte_ms, run_ms });
        }
    }
    rows
}

//! Rows of usage: one for each key and each part of the period.

use std::collections::BTreeMap;

use rating::{
    calendar::slot::Slot,
    pricing::meter::{Quantity, Unit},
};
use serde::Serialize;
use usage::queries::groups::GroupUsage;
use utoipa::ToSchema;
use uuid::Uuid;

/// The most rows of an answer; a year of hours, or 200 keys in a hundred slots.
pub const MAX_ROWS: usize = 20_000;

/// Usage of one key in one part of the period.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct RowAnswer {
    /// The date of the day, or the month.
    #[schema(example = "2025-10-26")]
    pub(crate) date: String,
    #[schema(value_type = String, format = DateTime)]
    pub(crate) start: String,
    #[schema(value_type = String, format = DateTime)]
    pub(crate) end: String,
    /// An id, or the name of a machine type.
    #[schema(example = "019a1f00-0000-7000-8000-000000000000")]
    pub(crate) key: Option<String>,
    /// Bytes times milliseconds, exact; null where storage is not told.
    pub(crate) byte_ms: Option<String>,
    /// The same in units of 10⁹ bytes and one hour, cut after 12 digits.
    pub(crate) gb_hours: Option<String>,
    /// Milliseconds, exact; null where run time is not told.
    pub(crate) run_ms: Option<String>,
}

/// One row for each key and each slot; of grouped usage, rows of nothing are left out.
pub(crate) fn in_rows(
    slots: &[Slot],
    groups: &[(Option<Uuid>, GroupUsage)],
    names: &BTreeMap<Uuid, String>,
    grouped: bool,
) -> Vec<RowAnswer> {
    let mut rows = Vec::new();
    for (key, usage) in groups {
        let key = key.map(|id| names.get(&id).cloned().unwrap_or_else(|| id.to_string()));
        for (index, slot) in slots.iter().enumerate() {
            let (byte_ms, run_ms) = (usage.byte_ms.get(index).copied(), usage.run_ms.get(index).copied());
            let nothing = byte_ms.unwrap_or_default() == 0 && run_ms.unwrap_or_default() == 0;
            if grouped && nothing {
                continue;
            }
            let gb_hours = |metered| Quantity { metered, unit: Unit::GbHour }.to_string();
            rows.push(RowAnswer {
                date: slot.date.clone(),
                start: slot.span.start().to_string(),
                end: slot.span.end().to_string(),
                key: key.clone(),
                byte_ms: byte_ms.map(|byte_ms| byte_ms.to_string()),
                gb_hours: byte_ms.map(gb_hours),
                run_ms: run_ms.map(|run_ms| run_ms.to_string()),
            });
        }
    }
    rows
}

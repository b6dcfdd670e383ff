//! Usage rows as CSV (RFC 4180), with the columns of the JSON rows.
//!
//! A spreadsheet may round numbers that it parses, so metered amounts are exact integers. Cells hold only ids, dates, numbers and
//! fixed words: no cell needs quotes, and none can be read as a formula.

use std::fmt::Write as _;

use usage::queries::groups::GroupBy;

use crate::export::usage_rows::UsageRow;

/// Returns the rows as CSV with a header.
pub(crate) fn usage_rows_csv(rows: &[UsageRow], group_by: Option<GroupBy>) -> String {
    let key_name = group_by.map_or("key", GroupBy::as_str);
    let mut csv = format!("date,start,end,{key_name},byte_ms,gb_hours,run_ms\r\n");
    for row in rows {
        let key = row.key.as_deref().unwrap_or_default();
        let cell = |amount: Option<i128>| amount.map(|amount| amount.to_string()).unwrap_or_default();
        let (byte_ms, run_ms) = (cell(row.byte_ms), cell(row.run_ms));
        let gb_hours = row.gb_hours().unwrap_or_default();
        let (date, start, end) = (&row.slot.date, row.slot.span.start(), row.slot.span.end());
        // Writing to a `String` cannot fail.
        let _ = write!(csv, "{date},{start},{end},{key},{byte_ms},{gb_hours},{run_ms}\r\n");
    }
    csv
}

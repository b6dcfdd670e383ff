//! Rows of usage as CSV (RFC 4180), with our own columns.
//!
//! The problem: a spreadsheet reads numbers as it likes. The invariant: what was metered stands there as an exact integer. No cell holds
//! anything but ids, dates, numbers and fixed words, so that nothing needs quoting and nothing can pass for a formula.

use std::fmt::Write as _;

use usage::queries::groups::GroupBy;

use crate::export::usage_rows::RowAnswer;
/// The same columns as the JSON rows.
pub(crate) fn own(rows: &[RowAnswer], group_by: Option<GroupBy>) -> String {
    let key_name = group_by.map_or("key", GroupBy::as_str);
    let mut text = format!("date,start,end,{key_name},byte_ms,gb_hours,run_ms\r\n");
    for row in rows {
        let key = row.key.as_deref().unwrap_or_default();
        let cell = |value: &Option<String>| value.clone().unwrap_or_default();
        let (byte_ms, gb_hours, run_ms) = (cell(&row.byte_ms), cell(&row.gb_hours), cell(&row.run_ms));
        let RowAnswer { date, start, end, .. } = row;
        // Writing to a string doesn't fail.
        let _ = write!(text, "{date},{start},{end},{key},{byte_ms},{gb_hours},{run_ms}\r\n");
    }
    text
}

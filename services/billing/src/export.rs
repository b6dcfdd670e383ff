//! Exports: FOCUS data sets, CSV rows, and documents of invoices and credit notes.

pub mod csv;
pub mod documents;
pub mod focus;
pub mod usage_rows;

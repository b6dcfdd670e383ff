//! Invoices and credit notes as CSV and as printable HTML.
//!
//! People, spreadsheets and programs must see the same invoice. So all formats, the JSON response included, have the same items from
//! the same [`InvoiceDocument`]: lines, rounding, the amounts computed from the subtotal in their order, and the adjustments booked
//! later. Text of customers is escaped, and a page loads nothing from elsewhere.

use std::fmt::Write;

use contracts::invoice::{AdjustmentBooked, InvoiceFinalized};
use epoch::Timestamp;
use http_kit::html::Escaped;
use rating::invoice::InvoiceState;
use uuid::Uuid;

/// An invoice with its content. A draft has the content that it would have if it were finalized now.
#[derive(Debug, Clone)]
pub struct InvoiceDocument {
    pub id: Uuid,
    /// `draft`, `finalized` or `void`.
    pub status: &'static str,
    /// The calendar month, e.g. `2026-03`.
    pub month: String,
    /// The first instant of the month.
    pub start: Timestamp,
    /// The first instant after the month.
    pub end: Timestamp,
    /// The IANA time zone of the days.
    pub time_zone: String,
    /// The content. A draft has the number 0.
    pub content: InvoiceFinalized,
    /// The adjustments that were booked after the invoice was finalized.
    pub adjustments: Vec<AdjustmentBooked>,
    /// The number of the credit note that reverses the invoice.
    pub credit_note: Option<i64>,
    /// Whether jobs are still running or files are still stored, so that the amounts grow.
    pub provisional: bool,
}

/// A row of an invoice.
struct Row<'d> {
    kind: &'static str,
    meter: String,
    plan: String,
    plan_version: String,
    quantity: String,
    amount: &'d str,
}

impl<'d> Row<'d> {
    /// Returns the row of an amount that belongs to no meter.
    fn sum((kind, amount): (&'static str, &'d String)) -> Self {
        let empty = String::new;
        Self { kind, meter: empty(), plan: empty(), plan_version: empty(), quantity: empty(), amount }
    }

    /// Returns the row of a change of an invoice. Discount, minimum and tax have no plan.
    fn change(kind: &'static str, meter: String, plan: &str, plan_version: i32, amount: &'d str) -> Self {
        let plan_version = if plan.is_empty() { String::new() } else { plan_version.to_string() };
        Self { kind, meter, plan: plan.to_owned(), plan_version, quantity: String::new(), amount }
    }
}

impl InvoiceDocument {
    /// Returns the invoice number, or `None` for a draft.
    #[must_use]
    pub fn number(&self) -> Option<i64> {
        (self.status != "draft" && self.content.number > 0).then_some(self.content.number)
    }

    /// Returns the invoice as CSV with a header (RFC 4180). Cells that a spreadsheet would evaluate as formulas are escaped.
    #[must_use]
    pub fn csv(&self) -> String {
        let mut csv = String::from("invoice,month,kind,meter,plan,plan_version,quantity,amount,currency\r\n");
        let number = self.number().map_or_else(|| self.status.to_owned(), |number| number.to_string());
        for row in self.rows() {
            let cells = [
                cell(&number),
                cell(&self.month),
                cell(row.kind),
                cell(&row.meter),
                cell(&row.plan),
                cell(&row.plan_version),
                row.quantity,
                row.amount.to_owned(),
                cell(&self.content.currency),
            ];
            csv.push_str(&cells.join(","));
            csv.push_str("\r\n");
        }
        csv
    }

    /// Returns the invoice as a printable HTML page.
    #[must_use]
    pub fn html(&self) -> String {
        let title = match (self.number(), self.status) {
            (Some(number), "void") => format!("Invoice {number} (void)"),
            (Some(number), _) => format!("Invoice {number}"),
            (None, status) => format!("Invoice ({status})"),
        };
        let mut rows = String::new();
        for row in self.rows() {
            let cells = [row.kind, &row.meter, &row.plan, &row.plan_version];
            rows.push_str("<tr>");
            for text in cells {
                let _ = write!(rows, "<td>{}</td>", Escaped(text));
            }
            let _ = writeln!(
                rows,
                "<td class=n>{}</td><td class=n>{}</td></tr>",
                Escaped(&row.quantity),
                Escaped(row.amount)
            );
        }
        let credit_note =
            self.credit_note.map_or_else(String::new, |number| format!("<p>Reversed by credit note {number}.</p>"));
        format!(
            "<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n<title>{title}</title>\n<style>{STYLE}</style>\n\
             <h1>{title}</h1>\n<p>{month}, from {start} to {end} ({zone})</p>\n<p>Organization {organization}</p>\n{credit_note}\
             <table>\n<thead><tr><th>Item<th>Meter<th>Plan<th>Version<th class=n>Quantity<th class=n>{currency}</tr></thead>\n\
             <tbody>\n{rows}</tbody>\n</table>\n</html>\n",
            title = Escaped(&title),
            month = Escaped(&self.month),
            start = self.start,
            end = self.end,
            zone = Escaped(&self.time_zone),
            organization = self.content.organization_id,
            currency = Escaped(&self.content.currency),
        )
    }

    fn rows(&self) -> Vec<Row<'_>> {
        let content = &self.content;
        let mut rows = Vec::new();
        for line in &content.lines {
            rows.push(Row {
                kind: "usage",
                meter: line.meter.clone(),
                plan: line.plan.clone(),
                plan_version: line.plan_version.to_string(),
                quantity: format!("{} {}", line.quantity, line.unit),
                amount: &line.amount,
            });
        }
        let until_tax = [
            ("rounding, in the lines", &content.rounding),
            ("subtotal", &content.subtotal),
            ("discount, taken off", &content.discount),
            ("to the minimum", &content.minimum_true_up),
            ("tax", &content.tax),
        ];
        rows.extend(until_tax.map(Row::sum));
        for correction in &content.corrections {
            let meter = format!("{} of {}", correction.meter, correction.month);
            let (plan, version) = (&correction.plan, correction.plan_version);
            rows.push(Row::change("correction", meter, plan, version, &correction.amount));
        }
        let from_total = [
            ("total", &content.total),
            ("credit, taken off", &content.credit_applied),
            ("amount due", &content.amount_due),
        ];
        rows.extend(from_total.map(Row::sum));
        for booked in &self.adjustments {
            let kind = "booked later, settled with another invoice";
            let (plan, version) = (&booked.plan, booked.plan_version);
            rows.push(Row::change(kind, booked.meter.clone(), plan, version, &booked.amount));
        }
        rows
    }
}

/// A credit note, which reverses a void invoice. Its number is from the same series as invoice numbers.
#[derive(Debug, Clone)]
pub struct CreditNote {
    pub(crate) organization: Uuid,
    pub(crate) number: i64,
    pub(crate) invoice: Uuid,
    pub(crate) invoice_number: i64,
    pub(crate) month: String,
    pub(crate) currency: String,
    pub(crate) amount: String,
    pub(crate) reason: String,
}

impl CreditNote {
    /// Returns the credit note that reverses an invoice, or `None` if there is none.
    #[must_use]
    pub fn of(id: Uuid, invoice: &InvoiceState) -> Option<Self> {
        let (voided, finalized) = (invoice.voided()?, invoice.finalized()?);
        Some(Self {
            organization: finalized.organization_id,
            number: voided.credit_note?,
            invoice: id,
            invoice_number: finalized.number,
            month: invoice.drafted()?.month.clone(),
            currency: finalized.currency.clone(),
            amount: voided.amount.clone()?,
            reason: voided.reason.clone(),
        })
    }

    /// Returns the credit note as CSV with a header (RFC 4180).
    #[must_use]
    pub fn csv(&self) -> String {
        let (number, invoice) = (self.number.to_string(), self.invoice_number.to_string());
        // A negative amount is a number and not a formula, so it is not escaped.
        let cells = [
            cell(&number),
            cell(&invoice),
            cell(&self.month),
            cell(&self.reason),
            self.amount.clone(),
            cell(&self.currency),
        ];
        format!("credit_note,invoice,month,reason,amount,currency\r\n{}\r\n", cells.join(","))
    }

    /// Returns the credit note as a printable HTML page.
    #[must_use]
    pub fn html(&self) -> String {
        let Self { number, invoice_number, organization, .. } = self;
        format!(
            "<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n<title>Credit note {number}</title>\n<style>{STYLE}</style>\n\
             <h1>Credit note {number}</h1>\n<p>Reverses invoice {invoice_number} of {month}.</p>\n<p>Organization {organization}</p>\n\
             <table>\n<thead><tr><th>Reason<th class=n>{currency}</tr></thead>\n\
             <tbody>\n<tr><td>{reason}</td><td class=n>{amount}</td></tr>\n</tbody>\n</table>\n</html>\n",
            month = Escaped(&self.month),
            currency = Escaped(&self.currency),
            reason = Escaped(&self.reason),
            amount = Escaped(&self.amount),
        )
    }
}

const STYLE: &str = "body{font:11pt/1.4 system-ui,sans-serif;margin:2cm auto;max-width:18cm;color:#111}\
    table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.2em .5em;border-bottom:1px solid #ccc}\
    .n{text-align:right;font-variant-numeric:tabular-nums}thead{display:table-header-group}tr{break-inside:avoid}\
    @page{size:A4;margin:1.5cm}@media print{body{margin:0;max-width:none}}";

/// Returns text as a CSV cell.
fn cell(text: &str) -> String {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let text = if formula { format!("'{text}") } else { text.to_owned() };
    if text.contains([',', '"', '\r', '\n']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

#[cfg(test)]
pub(crate) mod tests {
    use contracts::invoice::{AdjustmentBooked, InvoiceFinalized, Line};
    use epoch::Timestamp;
    use uuid::Uuid;

    use super::{InvoiceDocument, cell};

    pub(crate) fn document() -> InvoiceDocument {
        let line = Line {
            meter: "compute".into(),
            unit: "s".into(),
            plan: "<script>alert('1')</script>".into(),
            plan_version: 1,
            metered: "1000".into(),
            quantity: "1".into(),
            amount: "2.50".into(),
        };
        let zero = || "0.00".to_owned();
        let content = InvoiceFinalized {
            organization_id: Uuid::nil(),
            number: 7,
            currency: "EUR".into(),
            lines: vec![line],
            corrections: vec![],
            days: vec![],
            rounding: "0.004".into(),
            subtotal: "2.50".into(),
            discount: zero(),
            minimum_true_up: zero(),
            tax: zero(),
            total: "2.50".into(),
            credit_applied: zero(),
            amount_due: "2.50".into(),
            discount_percent: "0".into(),
        };
        InvoiceDocument {
            id: Uuid::nil(),
            status: "finalized",
            month: "2025-03".into(),
            start: Timestamp::from_millis(0),
            end: Timestamp::from_millis(1),
            time_zone: "UTC".into(),
            content,
            adjustments: vec![],
            credit_note: None,
            provisional: false,
        }
    }

    pub(crate) fn late_adjustment() -> AdjustmentBooked {
        AdjustmentBooked {
            organization_id: Uuid::nil(),
            meter: "tax".into(),
            plan: String::new(),
            plan_version: 0,
            metered: "0".into(),
            amount: "-0.10".into(),
            settled_in_id: Uuid::max(),
            reason: "late".into(),
        }
    }

    #[test]
    fn csv_and_html_have_rounding_as_a_row() {
        let document = document();
        assert!(
            document.csv().contains("7,2025-03,\"rounding, in the lines\",,,,,0.004,EUR\r\n"),
            "{}",
            document.csv()
        );
        assert!(document.html().contains("<td>rounding, in the lines</td>"));
    }

    #[test]
    fn csv_and_html_have_late_adjustments() {
        let document = InvoiceDocument { adjustments: vec![late_adjustment()], ..document() };
        let row = "7,2025-03,\"booked later, settled with another invoice\",tax,,,,-0.10,EUR\r\n";
        assert!(document.csv().ends_with(row), "{}", document.csv());
        assert!(document.html().contains("<td>tax</td><td></td><td></td><td class=n></td><td class=n>-0.10</td>"));
    }

    #[test]
    fn html_escapes_customer_text_and_loads_nothing() {
        let page = document().html();
        assert!(page.contains("&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;") && !page.contains("<script"));
        for outside in ["http:", "https:", "src=", "url(", "@import", "<link"] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(page.contains("@media print"));
    }

    #[test]
    fn csv_cells_are_quoted_and_never_formulas() {
        assert_eq!(cell("a"), "a");
        assert_eq!(cell("a,\"b\""), "\"a,\"\"b\"\"\"");
        assert_eq!(cell("=1+1"), "'=1+1");
    }
}

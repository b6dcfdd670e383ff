//! Invoices as documents: JSON, CSV and HTML that prints well.
//!
//! The problem: an invoice is read by people, by spreadsheets and by programs, and must say the same to all. The invariant: every
//! form has the same rows from the same [`Document`]: lines, corrections, rounding, and then what follows from the subtotal in its
//! order. Text of customers is escaped; a page needs nothing from anywhere else.

use std::fmt::Write;

use contracts::invoice::{AdjustmentBooked, InvoiceFinalized};
use epoch::Timestamp;
use serde_json::{Value, json};
use service_kit::html::Escaped;
use uuid::Uuid;

/// An invoice, frozen or not.
#[derive(Debug, Clone)]
pub struct Document {
    /// Names it.
    pub id: Uuid,
    /// `draft`, `finalized` or `void`.
    pub status: &'static str,
    /// As `2026-03`.
    pub month: String,
    /// The period's first instant.
    pub start: Timestamp,
    /// The first instant after the period.
    pub end: Timestamp,
    /// The IANA time zone of its days.
    pub time_zone: String,
    /// Its content; of a draft what it would be now, with the number 0.
    pub content: InvoiceFinalized,
    /// What was booked on it after it was finalized.
    pub adjustments: Vec<AdjustmentBooked>,
    /// The number of the credit note that undoes it.
    pub credit_note: Option<i64>,
    /// Whether something still runs or is still stored that counts only up to now.
    pub provisional: bool,
}

/// A row of an invoice: what it is, of which meter, plan and version, how much, and the amount.
struct Row<'d> {
    kind: &'static str,
    detail: [String; 3],
    quantity: String,
    amount: &'d str,
}

impl Document {
    /// Its number, if it has one.
    #[must_use]
    pub fn number(&self) -> Option<i64> {
        (self.status != "draft" && self.content.number > 0).then_some(self.content.number)
    }

    /// As JSON; amounts are decimals in quotes.
    #[must_use]
    pub fn json(&self) -> Value {
        let content = &self.content;
        let day = |day: &contracts::invoice::Day| {
            json!({
                "date": day.date, "start": day.start_at.to_string(), "end": day.end_at.to_string(),
                "byte_ms": day.byte_milliseconds, "run_ms": day.run_milliseconds,
            })
        };
        json!({
            "id": self.id,
            "organization": content.organization_id,
            "status": self.status,
            "number": self.number(),
            "credit_note": self.credit_note,
            "month": self.month,
            "start": self.start.to_string(),
            "end": self.end.to_string(),
            "time_zone": self.time_zone,
            "provisional": self.provisional,
            "currency": content.currency,
            "lines": content.lines,
            "corrections": content.corrections,
            "rounding": content.rounding,
            "subtotal": content.subtotal,
            "discount": content.discount,
            "minimum_true_up": content.minimum_true_up,
            "tax": content.tax,
            "total": content.total,
            "credit_applied": content.credit_applied,
            "amount_due": content.amount_due,
            "adjustments": self.adjustments,
            "days": content.days.iter().map(day).collect::<Vec<_>>(),
        })
    }

    /// As CSV with a header (RFC 4180). A cell that a spreadsheet would take for a formula is text.
    #[must_use]
    pub fn csv(&self) -> String {
        let mut csv = String::from("invoice,month,kind,meter,plan,plan_version,quantity,amount,currency\r\n");
        let number = self.number().map_or_else(|| self.status.to_owned(), |number| number.to_string());
        for row in self.rows() {
            let [meter, plan, version] = &row.detail;
            let cells = [
                cell(&number),
                cell(&self.month),
                cell(row.kind),
                cell(meter),
                cell(plan),
                cell(version),
                row.quantity,
                row.amount.to_owned(),
                cell(&self.content.currency),
            ];
            csv.push_str(&cells.join(","));
            csv.push_str("\r\n");
        }
        csv
    }

    /// As a page to print.
    #[must_use]
    pub fn html(&self) -> String {
        let title = match (self.number(), self.status) {
            (Some(number), "void") => format!("Invoice {number} (void)"),
            (Some(number), _) => format!("Invoice {number}"),
            (None, status) => format!("Invoice ({status})"),
        };
        let mut rows = String::new();
        for row in self.rows() {
            let [meter, plan, version] = &row.detail;
            let cells = [row.kind, meter, plan, version];
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
            self.credit_note.map_or_else(String::new, |number| format!("<p>Undone by credit note {number}.</p>"));
        format!(
            "<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n<title>{title}</title>\n<style>{STYLE}</style>\n\
             <h1>{title}</h1>\n<p>{month}, from {start} to {end} ({zone})</p>\n<p>Organization {organization}</p>\n{credit_note}\
             <table>\n<thead><tr><th>What<th>Meter<th>Plan<th>Version<th class=n>Quantity<th class=n>{currency}</tr></thead>\n\
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
            let detail = [line.meter.clone(), line.plan.clone(), line.plan_version.to_string()];
            let quantity = format!("{} {}", line.quantity, line.unit);
            rows.push(Row { kind: "usage", detail, quantity, amount: &line.amount });
        }
        for correction in &content.corrections {
            let meter = format!("{} of {}", correction.meter, correction.month);
            let detail = [meter, correction.plan.clone(), correction.plan_version.to_string()];
            rows.push(Row { kind: "correction", detail, quantity: String::new(), amount: &correction.amount });
        }
        let sums = [
            ("rounding, in the lines", &content.rounding),
            ("subtotal", &content.subtotal),
            ("discount, taken off", &content.discount),
            ("to the minimum", &content.minimum_true_up),
            ("tax", &content.tax),
            ("total", &content.total),
            ("credit, taken off", &content.credit_applied),
            ("amount due", &content.amount_due),
        ];
        for (kind, amount) in sums {
            rows.push(Row { kind, detail: Default::default(), quantity: String::new(), amount });
        }
        rows
    }
}

const STYLE: &str = "body{font:11pt/1.4 system-ui,sans-serif;margin:2cm auto;max-width:18cm;color:#111}\
    table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.2em .5em;border-bottom:1px solid #ccc}\
    .n{text-align:right;font-variant-numeric:tabular-nums}thead{display:table-header-group}tr{break-inside:avoid}\
    @page{size:A4;margin:1.5cm}@media print{body{margin:0;max-width:none}}";

/// A cell of text.
fn cell(text: &str) -> String {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let text = if formula { format!("'{text}") } else { text.to_owned() };
    if text.contains([',', '"', '\r', '\n']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

#[cfg(test)]
mod tests {
    use contracts::invoice::{InvoiceFinalized, Line};
    use epoch::Timestamp;
    use uuid::Uuid;

    use super::{Document, cell};

    fn document() -> Document {
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
        };
        Document {
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

    #[test]
    fn every_form_has_rounding_as_a_row_of_its_own() {
        let document = document();
        assert_eq!(document.json()["rounding"], "0.004");
        assert!(
            document.csv().contains("7,2025-03,\"rounding, in the lines\",,,,,0.004,EUR\r\n"),
            "{}",
            document.csv()
        );
        assert!(document.html().contains("<td>rounding, in the lines</td>"));
    }

    #[test]
    fn a_page_escapes_what_customers_write_and_loads_nothing() {
        let page = document().html();
        assert!(page.contains("&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;") && !page.contains("<script"));
        for outside in ["http:", "https:", "src=", "url(", "@import", "<link"] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(page.contains("@media print"));
    }

    #[test]
    fn cells_are_quoted_and_never_formulas() {
        assert_eq!(cell("a"), "a");
        assert_eq!(cell("a,\"b\""), "\"a,\"\"b\"\"\"");
        assert_eq!(cell("=1+1"), "'=1+1");
    }
}

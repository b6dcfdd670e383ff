//! Invoices and credit notes as documents: JSON, CSV and HTML that prints well.
//!
//! The problem: an invoice is read by people, by spreadsheets and by programs, and must say the same to all. The invariant: every
//! form has the same rows from the same [`Document`]: lines, rounding, what follows from the subtotal in its order, and what was booked
//! after it was frozen. Text of customers is escaped; a page needs nothing from anywhere else.

use std::fmt::Write;

use contracts::invoice::{AdjustmentBooked, InvoiceFinalized};
use epoch::Timestamp;
use http_kit::html::Escaped;
use rating::invoice::InvoiceState;
use serde_json::{Value, json};
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

impl<'d> Row<'d> {
    fn sum((kind, amount): (&'static str, &'d String)) -> Self {
        Self { kind, detail: Default::default(), quantity: String::new(), amount }
    }
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
            "discount_percent": content.discount_percent,
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
            let detail = changed(meter, &correction.plan, correction.plan_version);
            rows.push(Row { kind: "correction", detail, quantity: String::new(), amount: &correction.amount });
        }
        let from_total = [
            ("total", &content.total),
            ("credit, taken off", &content.credit_applied),
            ("amount due", &content.amount_due),
        ];
        rows.extend(from_total.map(Row::sum));
        for booked in &self.adjustments {
            let detail = changed(booked.meter.clone(), &booked.plan, booked.plan_version);
            let kind = "booked later, settled with another invoice";
            rows.push(Row { kind, detail, quantity: String::new(), amount: &booked.amount });
        }
        rows
    }
}

/// Of which meter, plan and version a change is; what follows from the lines has no plan.
fn changed(meter: String, plan: &str, version: i32) -> [String; 3] {
    let version = if plan.is_empty() { String::new() } else { version.to_string() };
    [meter, plan.to_owned(), version]
}

/// A credit note: what of an invoice is given back, under a number of the same series.
#[derive(Debug, Clone)]
pub struct CreditNote {
    organization: Uuid,
    number: i64,
    invoice: Uuid,
    invoice_number: i64,
    month: String,
    currency: String,
    amount: String,
    reason: String,
}

impl CreditNote {
    /// The credit note that undoes an invoice, if one does.
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

    /// As JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "organization": self.organization,
            "number": self.number,
            "invoice": self.invoice,
            "invoice_number": self.invoice_number,
            "month": self.month,
            "currency": self.currency,
            "amount": self.amount,
            "reason": self.reason,
        })
    }

    /// As CSV with a header (RFC 4180).
    #[must_use]
    pub fn csv(&self) -> String {
        let (number, invoice) = (self.number.to_string(), self.invoice_number.to_string());
        // An amount is a number, also one that begins with a minus.
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

    /// As a page to print.
    #[must_use]
    pub fn html(&self) -> String {
        let Self { number, invoice_number, organization, .. } = self;
        format!(
            "<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n<title>Credit note {number}</title>\n<style>{STYLE}</style>\n\
             <h1>Credit note {number}</h1>\n<p>It undoes invoice {invoice_number} of {month}.</p>\n<p>Organization {organization}</p>\n\
             <table>\n<thead><tr><th>Why<th class=n>{currency}</tr></thead>\n\
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

/// A cell of text.
fn cell(text: &str) -> String {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let text = if formula { format!("'{text}") } else { text.to_owned() };
    if text.contains([',', '"', '\r', '\n']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

#[cfg(test)]
mod tests {
    use contracts::invoice::{AdjustmentBooked, InvoiceFinalized, Line};
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
            discount_percent: "0".into(),
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
    fn every_form_tells_what_was_booked_later() {
        let booked = AdjustmentBooked {
            organization_id: Uuid::nil(),
            meter: "tax".into(),
            plan: String::new(),
            plan_version: 0,
            metered: "0".into(),
            amount: "-0.10".into(),
            settled_in_id: Uuid::max(),
            reason: "late".into(),
        };
        let document = Document { adjustments: vec![booked], ..document() };
        assert_eq!(document.json()["adjustments"][0]["amount"], "-0.10");
        let row = "7,2025-03,\"booked later, settled with another invoice\",tax,,,,-0.10,EUR\r\n";
        assert!(document.csv().ends_with(row), "{}", document.csv());
        assert!(document.html().contains("<td>tax</td><td></td><td></td><td class=n></td><td class=n>-0.10</td>"));
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

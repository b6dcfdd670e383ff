//! The FOCUS export, checked against the published column list (`tests/focus`), costs and invoices.

use std::collections::{BTreeMap, BTreeSet};

use bigdecimal::BigDecimal;
use epoch::Timestamp;
use rating::money::currency::Currency;
use serde_json::{Value, json};

use crate::support::{Billing, id};

const FOCUS_QUERY: &str =
    "from=2025-10-01T00:00:00Z&to=2025-11-01T00:00:00Z&as_of=2025-11-02T00:00:00Z&group_by=job&format=focus";

/// The published constraints of a FOCUS column.
struct Column {
    level: &'static str,
    nulls: bool,
    data_type: &'static str,
    allowed: Vec<&'static str>,
}

fn published() -> BTreeMap<&'static str, Column> {
    let mut columns = BTreeMap::new();
    for line in include_str!("../focus/columns-1.2.csv").lines().skip(1) {
        let [name, level, nulls, data_type, allowed] = line.split(',').collect::<Vec<_>>().try_into().unwrap();
        let allowed = allowed.split('|').filter(|value| !value.is_empty()).collect();
        columns.insert(name, Column { level, nulls: nulls == "True", data_type, allowed });
    }
    columns
}

/// Accepts numbers without plus sign, digit groups and units. FOCUS allows exponents, but the export writes none.
fn is_decimal(value: &str) -> bool {
    let digits = value.strip_prefix('-').unwrap_or(value);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let all = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    all(whole) && all(fraction)
}

fn is_instant(value: &str) -> bool {
    value.ends_with('Z') && value.parse::<Timestamp>().is_ok()
}

fn decimal(text: &str) -> BigDecimal {
    text.parse().unwrap()
}

/// Parses a CSV data set into rows of values by column.
fn parse_rows(text: &str) -> Vec<BTreeMap<String, String>> {
    let mut lines = text.trim_end().split("\r\n").map(|line| line.split(',').map(str::to_owned).collect::<Vec<_>>());
    let header = lines.next().unwrap();
    lines.map(|cells| header.iter().cloned().zip(cells).collect()).collect()
}

async fn export(billing: &Billing, query: &str) -> Vec<BTreeMap<String, String>> {
    let answer = billing.service.get(billing.path("usage/rows", query)).by(&billing.viewer).send().await.expect(200);
    parse_rows(std::str::from_utf8(&answer.bytes).unwrap())
}

fn sum<'r>(rows: impl IntoIterator<Item = &'r BTreeMap<String, String>>, column: &str) -> BigDecimal {
    rows.into_iter().filter(|row| !row[column].is_empty()).map(|row| decimal(&row[column])).sum()
}

/// Whether the row is an adjustment of the whole invoice, not a line of it.
fn is_invoice_adjustment(row: &BTreeMap<String, String>) -> bool {
    ["Discount", "True-up to the minimum", "Tax", "Credit"].contains(&row["ChargeDescription"].as_str())
}

const OCTOBER_QUERY: &str = "from=2025-10-01T00:00:00Z&to=2025-11-01T00:00:00Z&as_of=2025-11-02T00:00:00Z";

/// Opens an account that uses every pricing feature.
///
/// The first plan has tiers with a fee, packages and free units. A plan with volume pricing follows on the 16th and a price
/// override on the 20th. The account has a discount, a minimum, tax and a credit.
async fn charge_october(billing: &Billing) {
    billing.open_account().await;
    for day in 1..=28 {
        let job = id(100 + day);
        billing.job(job, &format!("2025-10-{day:02}T08:00:00Z"), billing.job_created()).await;
        billing.job(job, &format!("2025-10-{day:02}T08:00:00Z"), billing.job_started(Some(id(21 + day % 3)))).await;
        billing.job(job, &format!("2025-10-{day:02}T08:{:02}:07.123Z", day * 2), billing.job_succeeded()).await;
    }
    for (file, bytes) in [(1, 1_234_567_891), (2, 77_777_777_777), (3, 1)] {
        billing.file(id(file), &format!("2025-10-{:02}T05:06:07.891Z", file * 5), billing.part(0, bytes)).await;
    }
    billing.wait_until_applied(3, 3 * 28).await;
    let first = json!({
        "name": "Tiers", "currency": "EUR", "tax_percent": "21", "minimum": "500",
        "charges": [
            { "meter": "compute", "unit": "s", "model": "package", "free": "700", "package_size": "3600", "package_price": "0.37" },
            { "meter": "storage", "unit": "GiB.h", "model": "graduated",
                "tiers": [{ "up_to": "30", "unit_price": "0.011" }, { "up_to": null, "unit_price": "0.0003", "flat_fee": "1.5" }] },
        ],
    });
    billing.assign_plan(&first).await;
    let second = json!({
        "name": "Volume", "currency": "EUR", "tax_percent": "21", "minimum": "500",
        "charges": [
            { "meter": "compute", "unit": "s", "model": "volume",
                "tiers": [{ "up_to": "20000", "unit_price": "0.0007" }, { "up_to": null, "unit_price": "0.0001", "flat_fee": "2" }] },
            { "meter": "storage", "unit": "GB.h", "model": "flat", "unit_price": "0.0033" },
        ],
    });
    billing.assign_plan_from("2025-10-16T12:34:56.789Z", &second).await;
    let price_override = json!({ "meter": "storage", "unit": "GB.h", "model": "flat", "unit_price": "0.0017" });
    billing
        .post_account(
            "prices",
            &json!({ "meter": "storage", "charge": price_override, "from": "2025-10-20T00:00:00Z" }),
        )
        .await
        .is(200);
    billing.post_account("discount", &json!({ "percent": "12.5", "reason": "early" })).await.is(200);
    billing.post_account("credits", &json!({ "amount": "5", "reason": "outage" })).await.is(200);
}

#[tokio::test]
async fn focus_rows_sum_to_costs_and_invoice_exactly() {
    let billing = Billing::start().await;
    charge_october(&billing).await;
    let (costs, usage) =
        (billing.get_json("costs", OCTOBER_QUERY).await, billing.get_json("usage", OCTOBER_QUERY).await);
    assert_eq!(costs["lines"].as_array().unwrap().len(), 5, "{costs}");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let check_adjustments = async |rows: &[BTreeMap<String, String>], case: &str| {
        let invoice = billing.get_json("invoices/2025-10", "").await;
        for (description, field, sign) in [
            ("Discount", "discount", -1),
            ("True-up to the minimum", "minimum_true_up", 1),
            ("Tax", "tax", 1),
            ("Credit", "credit_applied", -1),
        ] {
            let exported = sum(rows.iter().filter(|row| row["ChargeDescription"] == description), "BilledCost");
            assert_eq!(exported, decimal(&text(&invoice[field])) * BigDecimal::from(sign), "{case}: {description}");
            assert_ne!(exported, decimal("0"), "{description}");
        }
        assert_eq!(sum(rows, "BilledCost"), decimal(&text(&invoice["amount_due"])), "{case}");
    };
    for query in [
        "every=day",
        "every=hour",
        "every=period",
        "every=day&group_by=job",
        "every=month&group_by=file",
        "every=day&group_by=user&limit=1",
        "every=period&group_by=job&limit=7",
        "every=day&group_by=machine_type",
    ] {
        let rows = export(&billing, &format!("{OCTOBER_QUERY}&format=focus&{query}")).await;
        let lines: Vec<_> = rows.iter().filter(|row| !is_invoice_adjustment(row)).collect();
        assert_eq!(sum(lines.iter().copied(), "BilledCost"), decimal(&text(&costs["total"])), "{query}");
        for (meter, metered) in [("storage", &usage["storage"]["byte_ms"]), ("compute", &usage["compute"]["run_ms"])] {
            let of_meter: Vec<_> = lines.iter().copied().filter(|row| row["SkuId"] == meter).collect();
            let shown = costs["lines"].as_array().unwrap().iter().filter(|line| line["meter"] == meter);
            let shown: BigDecimal = shown.map(|line| decimal(&text(&line["amount"]))).sum();
            assert_eq!(sum(of_meter.iter().copied(), "BilledCost"), shown, "{query}: {meter}");
            assert_eq!(sum(of_meter.iter().copied(), "x_MeteredQuantity"), decimal(&text(metered)), "{query}: {meter}");
        }
        check_adjustments(&rows, query).await;
    }
    // Finalizing uses the credit up, and the export still contains it. A part of a month has no invoice adjustments.
    billing.finalize_invoice("2025-10").await;
    check_adjustments(&export(&billing, &format!("{OCTOBER_QUERY}&format=focus")).await, "finalized").await;
    let part = "from=2025-10-01T00:00:00Z&to=2025-10-18T00:00:00Z&as_of=2025-11-02T00:00:00Z";
    let rows = export(&billing, &format!("{part}&format=focus&group_by=job")).await;
    assert!(!rows.iter().any(is_invoice_adjustment));
    assert_eq!(sum(&rows, "BilledCost"), decimal(&text(&billing.get_json("costs", part).await["total"])));
    billing.service.close().await;
}

#[tokio::test]
async fn contracted_price_is_the_account_s_list_price_the_plan_s() {
    let billing = Billing::start().await;
    charge_october(&billing).await;
    let rows = export(&billing, &format!("{OCTOBER_QUERY}&format=focus")).await;
    let on = |day: &str, sku: &str| -> Vec<[String; 5]> {
        let of_day = rows.iter().filter(|row| {
            row["ChargePeriodStart"].starts_with(day) && row["SkuId"] == sku && !row["ContractedUnitPrice"].is_empty()
        });
        let names = ["ChargeCategory", "ContractedUnitPrice", "ListUnitPrice", "PricingUnit", "PricingQuantity"];
        of_day.map(|row| names.map(|name| row[name].clone())).collect()
    };
    let row = |cells: [&str; 5]| cells.map(str::to_owned);
    // 1.15 GiB are stored from 05:06 on the 5th. The first 30 GiB-hours have the price of the first tier.
    assert_eq!(on("2025-10-06", "storage")[0][..4], row(["Usage", "0.011", "0.011", "GiB-Hours", ""])[..4]);
    let second: Vec<_> = on("2025-10-06", "storage").into_iter().map(|cells| cells[..4].join(" ")).collect();
    assert_eq!(
        second,
        ["Usage 0.011 0.011 GiB-Hours", "Usage 0.0003 0.0003 GiB-Hours", "Purchase 1.5 1.5 Fees"],
        "a day in two tiers has two rows and one for the fee"
    );
    // The 700 free seconds cover the first day. The first package begins on the fourth day.
    assert_eq!(on("2025-10-01", "compute"), [row(["Usage", "0.37", "0.37", "3600 Seconds", "0"])]);
    assert_eq!(on("2025-10-04", "compute")[0][..4], row(["Usage", "0.37", "0.37", "3600 Seconds", ""])[..4]);
    // From the 20th on the contracted price is the override, and the list price remains that of the plan.
    assert_eq!(on("2025-10-19", "storage")[0][1..4], row(["", "0.0033", "0.0033", "GB-Hours", ""])[1..4]);
    assert_eq!(on("2025-10-20", "storage")[0][1..4], row(["", "0.0017", "0.0033", "GB-Hours", ""])[1..4]);
    // The override does not change the price list item.
    let item = |day: &str| {
        let row =
            rows.iter().find(|row| row["ChargePeriodStart"].starts_with(day) && row["SkuId"] == "storage").unwrap();
        ["SkuPriceId", "SkuMeter", "x_PlanVersion"].map(|name| row[name].clone())
    };
    assert_eq!(item("2025-10-19"), item("2025-10-20"));
    assert_ne!(item("2025-10-01")[0], item("2025-10-19")[0]);
    // List costs of discount and tax are computed from list costs of the lines.
    let listed = |description: &str| sum(rows.iter().filter(|row| row["ChargeDescription"] == description), "ListCost");
    let lines = sum(rows.iter().filter(|row| !is_invoice_adjustment(row)), "ListCost");
    assert!(lines > sum(rows.iter().filter(|row| !is_invoice_adjustment(row)), "BilledCost"));
    let close = |actual: BigDecimal, expected: BigDecimal| {
        assert!((actual.clone() - &expected).abs() < decimal("0.02"), "{actual}, not {expected}");
    };
    close(listed("Discount"), -(lines.clone() * decimal("0.125")));
    let taxed = lines + listed("Discount") + listed("True-up to the minimum");
    close(listed("Tax"), taxed * decimal("0.21"));
    billing.service.close().await;
}

/// Each row lies in one account month, which is the month of its invoice, for every query period.
#[tokio::test]
async fn billing_period_is_the_month_of_the_account() {
    let billing = Billing::start().await;
    charge_october(&billing).await;
    for (query, months) in [
        ("from=2025-10-05T00:00:00Z&to=2025-10-18T00:00:00Z&every=day", &["2025-10"][..]),
        ("from=2025-10-20T00:00:00Z&to=2025-12-10T00:00:00Z&every=period", &["2025-10", "2025-11", "2025-12"]),
        (
            "from=2025-10-20T00:00:00Z&to=2025-12-10T00:00:00Z&every=month&group_by=file",
            &["2025-10", "2025-11", "2025-12"],
        ),
    ] {
        let rows = export(&billing, &format!("{query}&as_of=2026-01-02T00:00:00Z&format=focus")).await;
        let mut months_found = BTreeSet::new();
        for row in rows.iter().filter(|row| row["ChargeCategory"] == "Usage") {
            let [start, end] = ["BillingPeriodStart", "BillingPeriodEnd"].map(|name| row[name].clone());
            let next =
                Timestamp::from_millis(start.parse::<Timestamp>().unwrap().as_millis() + 32 * 86_400_000).to_string();
            assert_eq!(end, format!("{}-01T00:00:00Z", &next[..7]), "{query}");
            assert!(
                start.ends_with("-01T00:00:00Z") && start <= row["ChargePeriodStart"] && row["ChargePeriodEnd"] <= end
            );
            months_found.insert(start[..7].to_owned());
        }
        assert_eq!(months_found.iter().map(String::as_str).collect::<Vec<_>>(), months, "{query}");
        let period = query.split("&every").next().unwrap();
        let costs = billing.get_json("costs", &format!("{period}&as_of=2026-01-02T00:00:00Z")).await;
        assert_eq!(sum(&rows, "BilledCost"), decimal(costs["total"].as_str().unwrap()), "{query}");
    }
    billing.service.close().await;
}

#[tokio::test]
async fn columns_and_values_conform_to_focus_1_2() {
    let published = published();
    assert_eq!(published.len(), 57);
    assert_eq!(published.values().filter(|column| column.level == "Mandatory").count(), 21);

    let billing = Billing::start().await;
    charge_october(&billing).await;
    let mut categories = BTreeSet::new();
    let answer =
        billing.service.get(billing.path("usage/rows", FOCUS_QUERY)).by(&billing.viewer).send().await.expect(200);
    let text = String::from_utf8(answer.bytes.to_vec()).unwrap();
    let mut lines = text.trim_end().split("\r\n").map(|line| line.split(',').collect::<Vec<_>>());
    let header = lines.next().unwrap();
    let first_extension = header.iter().position(|name| name.starts_with("x_")).unwrap_or(header.len());
    let (standard, extension) = header.split_at(first_extension);
    assert!(
        extension.iter().all(|name| name.starts_with("x_")),
        "extension columns follow the FOCUS columns: {header:?}"
    );
    assert!(standard.is_sorted(), "{standard:?}");
    for (name, column) in &published {
        assert!(column.level != "Mandatory" || standard.contains(name), "{name} is mandatory");
    }
    let mut rows = 0;
    for cells in lines {
        assert_eq!(cells.len(), header.len(), "{cells:?}");
        for (name, value) in standard.iter().zip(&cells) {
            let column = published.get(name).unwrap_or_else(|| panic!("FOCUS 1.2 has no column {name}"));
            if value.is_empty() {
                assert!(column.nulls, "{name} is null");
                continue;
            }
            match column.data_type {
                "Decimal" => assert!(is_decimal(value), "{name} is {value}"),
                "Date/Time" => assert!(is_instant(value), "{name} is {value}"),
                "String" => assert_eq!(value.trim(), *value, "{name}"),
                other => panic!("{name} is of the type {other}, which the export never writes"),
            }
            assert!(column.allowed.is_empty() || column.allowed.contains(value), "{name} is {value}");
        }
        let cell = |name: &str| cells[header.iter().position(|column| *column == name).unwrap()];
        assert!(
            cell("ChargeCategory") == "Usage" || cell("ConsumedQuantity").is_empty(),
            "only usage rows have a consumed quantity: {cells:?}"
        );
        assert_eq!(cell("SkuMeter").is_empty(), cell("SkuId").is_empty());
        assert_ne!(cell("BillingAccountName"), cell("BillingAccountId"), "the name differs from the id");
        assert!(cell("BillingCurrency").parse::<Currency>().is_ok());
        // Columns that are null together.
        for (one, other) in
            [("ConsumedQuantity", "ConsumedUnit"), ("PricingQuantity", "PricingUnit"), ("ResourceId", "ResourceType")]
        {
            assert_eq!(cell(one).is_empty(), cell(other).is_empty(), "{one} and {other}");
        }
        // Columns required by the charge category.
        let required = match cell("ChargeCategory") {
            "Usage" => &[
                "ConsumedQuantity",
                "PricingQuantity",
                "PricingCategory",
                "SkuId",
                "SkuPriceId",
                "ListUnitPrice",
                "ContractedUnitPrice",
            ][..],
            "Purchase" => {
                &["PricingQuantity", "PricingCategory", "SkuId", "SkuPriceId", "ListUnitPrice", "ContractedUnitPrice"]
            }
            "Tax" => {
                assert_eq!((cell("ListUnitPrice"), cell("ContractedUnitPrice"), cell("PricingQuantity")), ("", "", ""));
                &[]
            }
            _ => &[],
        };
        for name in required {
            assert!(!cell(name).is_empty(), "{name} is null");
        }
        for (price, cost) in [("ContractedUnitPrice", "ContractedCost"), ("ListUnitPrice", "ListCost")] {
            if !cell(price).is_empty() {
                let product = decimal(cell(price)) * decimal(cell("PricingQuantity"));
                assert!((product - decimal(cell(cost))).abs() <= decimal("0.000000000000001"), "{cost}: {cells:?}");
            }
        }
        assert_eq!(cell("ChargeClass"), "");
        categories.insert(cell("ChargeCategory").to_owned());
        let subcategories = match cell("ServiceCategory") {
            "Storage" => [
                "Backup Storage",
                "Block Storage",
                "File Storage",
                "Object Storage",
                "Storage Platforms",
                "Other (Storage)",
            ],
            "Compute" => [
                "Containers",
                "End User Computing",
                "Quantum Compute",
                "Serverless Compute",
                "Virtual Machines",
                "Other (Compute)",
            ],
            "Other" => {
                assert_eq!(cell("ServiceSubcategory"), "Other (Other)");
                continue;
            }
            other => panic!("unexpected service category {other}"),
        };
        assert!(subcategories.contains(&cell("ServiceSubcategory")));
        rows += 1;
    }
    assert!(rows > 50, "{rows}");
    assert_eq!(categories.into_iter().collect::<Vec<_>>(), ["Adjustment", "Credit", "Purchase", "Tax", "Usage"]);
    billing.service.close().await;
}

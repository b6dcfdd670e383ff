//! Rows in the columns of FOCUS, against the published list of them (`tests/focus`).

use std::collections::BTreeMap;

use billing::domain::currency::Currency;
use epoch::Timestamp;

use crate::{rows::october, support::Billing};

const QUERY: &str = "from=2025-09-30T22:00:00Z&to=2025-10-31T23:00:00Z&time_zone=Europe/Madrid\
    &as_of=2025-11-02T00:00:00Z&group_by=job&format=focus";

/// What FOCUS says of a column.
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

/// Numbers without signs of plus, groups or units; an exponent would be allowed and isn't used.
fn is_decimal(value: &str) -> bool {
    let digits = value.strip_prefix('-').unwrap_or(value);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let all = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    all(whole) && all(fraction)
}

fn is_instant(value: &str) -> bool {
    value.ends_with('Z') && value.parse::<Timestamp>().is_ok()
}

#[tokio::test]
async fn columns_and_values_are_those_that_are_published() {
    let published = published();
    assert_eq!(published.len(), 57);
    assert_eq!(published.values().filter(|column| column.level == "Mandatory").count(), 21);

    let billing = Billing::start().await;
    october(&billing).await;
    let answer = billing.service.get(billing.path("usage/rows", QUERY)).by(&billing.viewer).send().await.expect(200);
    let text = String::from_utf8(answer.bytes.to_vec()).unwrap();
    let mut lines = text.trim_end().split("\r\n").map(|line| line.split(',').collect::<Vec<_>>());
    let header = lines.next().unwrap();
    let own = header.iter().position(|name| name.starts_with("x_")).unwrap_or(header.len());
    let (standard, ours) = header.split_at(own);
    assert!(ours.iter().all(|name| name.starts_with("x_")), "own columns come after those of FOCUS: {header:?}");
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
                other => panic!("{name} is of the type {other}, which isn't written"),
            }
            assert!(column.allowed.is_empty() || column.allowed.contains(value), "{name} is {value}");
        }
        let cell = |name: &str| cells[header.iter().position(|column| *column == name).unwrap()];
        assert!(cell("BillingCurrency").parse::<Currency>().is_ok());
        // What is null only together with something else.
        for (one, other) in
            [("ConsumedQuantity", "ConsumedUnit"), ("PricingQuantity", "PricingUnit"), ("ResourceId", "ResourceType")]
        {
            assert_eq!(cell(one).is_empty(), cell(other).is_empty(), "{one} and {other}");
        }
        // What a charge for usage that isn't a correction must say.
        for name in [
            "PricingQuantity",
            "PricingUnit",
            "PricingCategory",
            "SkuId",
            "SkuPriceId",
            "ListUnitPrice",
            "ContractedUnitPrice",
        ] {
            assert!(!cell(name).is_empty(), "{name} is null");
        }
        assert_eq!((cell("ChargeCategory"), cell("ChargeClass")), ("Usage", ""));
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
            other => panic!("there is nothing of the category {other}"),
        };
        assert!(subcategories.contains(&cell("ServiceSubcategory")));
        rows += 1;
    }
    assert_eq!(rows, 5, "three rows of storage and two of run time");
    billing.service.close().await;
}

//! What usage costs at the default prices.

use serde_json::json;

use crate::support::{Billing, id};

const OCTOBER: &str = "from=2025-10-01T00:00:00Z&to=2025-11-01T00:00:00Z&as_of=2025-10-31T00:00:00Z";

#[tokio::test]
async fn are_lines_and_their_sum() {
    let billing = Billing::start().await;
    // 30 days of a terabyte, and 2 hours and 7.25 seconds of a job.
    billing.file(id(1), "2025-10-01T00:00:00Z", billing.part(0, 1_000_000_000_000)).await;
    billing.job(id(11), "2025-10-10T08:00:00Z", billing.job_started(Some(id(21)))).await;
    billing.job(id(11), "2025-10-10T10:00:07.250Z", billing.job_succeeded()).await;
    billing.caught_up(1, 2).await;
    assert_eq!(
        billing.ask("costs", OCTOBER).await,
        json!({
            "organization": billing.organization,
            "from": "2025-10-01T00:00:00.000Z",
            "to": "2025-11-01T00:00:00.000Z",
            "as_of": "2025-10-31T00:00:00.000Z",
            "known_at": null,
            "time_zone": "UTC",
            "currency": "EUR",
            "lines": [
                { "meter": "storage", "unit": "GB.h", "quantity": "720000", "unit_price": "0.0001", "amount": "72.00" },
                { "meter": "compute", "unit": "s", "quantity": "7207.25", "unit_price": "0.00005", "amount": "0.36" },
            ],
            "total": "72.36",
            "provisional": true,
            "jobs": [{ "job": id(11), "user": id(21), "run_ms": "7207250", "amount": "0.3603625" }],
            "more_jobs": false,
        })
    );
    billing.file(id(1), "2025-10-31T00:00:00Z", billing.deleted(1_000_000_000_000)).await;
    billing.caught_up(2, 2).await;
    let costs = billing.ask("costs", OCTOBER).await;
    assert_eq!((&costs["total"], &costs["provisional"]), (&json!("72.36"), &json!(false)));
    billing.service.close().await;
}

#[tokio::test]
async fn of_nothing_are_nothing() {
    let billing = Billing::start().await;
    let costs = billing.ask("costs", OCTOBER).await;
    assert_eq!((&costs["total"], &costs["provisional"]), (&json!("0.00"), &json!(false)));
    assert_eq!(costs["lines"].as_array().map(Vec::len), Some(2));
    billing.service.close().await;
}

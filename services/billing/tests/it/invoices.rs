//! Invoices through the API: drafting, finalizing and voiding.

use http_kit::Caller;
use serde_json::{Value, json};

use crate::support::{october_customer, team_plan};

#[tokio::test]
async fn invoice_is_drafted_finalized_numbered_and_voided() {
    let billing = october_customer().await;
    billing.assign_plan(&team_plan("0.01")).await;
    let october = |query: &str| billing.path("invoices/2025-10", query);
    let draft = billing.service.get(october("")).by(&billing.viewer).send().await.expect(200).json();
    assert_eq!((&draft["status"], &draft["number"], &draft["total"]), (&json!("draft"), &Value::Null, &json!("39.86")));
    assert_eq!(
        (&draft["subtotal"], &draft["tax"], &draft["rounding"]),
        (&json!("36.24"), &json!("3.62"), &json!("-0.0024"))
    );

    let finalize = format!("organizations/{}/invoices/2025-10/finalize", billing.organization);
    let forbidden = billing.service.post(format!("/api/v1/admin/{finalize}")).by(&billing.viewer);
    forbidden.send().await.problem(403);
    let with_key = |key: &'static str| {
        let request = billing.service.post(format!("/api/v1/admin/{finalize}")).by(&Caller::operator());
        request.header("idempotency-key", key)
    };
    with_key("a").send().await.is(200);
    with_key("a").send().await.is(200);
    with_key("b").send().await.problem(409);
    let finalized = billing.service.get(october("")).by(&billing.viewer).send().await.expect(200).json();
    assert_eq!(
        (&finalized["status"], &finalized["number"], &finalized["total"]),
        (&json!("finalized"), &json!(1), &json!("39.86"))
    );

    let csv = billing.service.get(october("format=csv")).by(&billing.viewer).send().await.expect(200);
    assert!(String::from_utf8_lossy(&csv.bytes).contains("1,2025-10,usage,compute,"));
    let html = billing.service.get(october("format=html")).by(&billing.viewer).send().await.expect(200);
    assert_eq!(html.header("content-type"), "text/html; charset=utf-8");

    billing.post_invoice("2025-10", "void", &json!({ "reason": "" })).await.problem(422);
    billing.void_invoice("2025-10", "wrong address").await;
    // The credit note has number 2 and the next invoice number 3: refused requests use no number.
    with_key("c").send().await.is(200);
    let listed = async || {
        let list = billing.get_json("invoices", "").await;
        let items = list["items"].as_array().unwrap().iter();
        let mut numbers: Vec<_> = items.map(|item| (item["number"].as_i64(), item["credit_note"].as_i64())).collect();
        numbers.sort_unstable();
        (numbers.len() == 2).then_some(numbers)
    };
    assert_eq!(billing.service.eventually(listed).await, [(Some(1), Some(2)), (Some(3), None)]);
    billing.service.close().await;
}

#[tokio::test]
async fn wrong_plan_is_replaced_after_its_invoice_is_voided() {
    let billing = october_customer().await;
    billing.assign_plan(&team_plan("0.01")).await;
    let right = billing.publish_plan(&team_plan("0.02")).await;
    let assign = json!({ "plan": right, "plan_version": 1, "from": "2025-10-01T00:00:00Z" });
    billing.finalize_invoice("2025-10").await;
    assert_eq!(billing.get_json("invoices/2025-10", "").await["total"], "39.86");
    assert_eq!(billing.post_account("plan", &assign).await.problem(409)["type"], "/problems/invoiced-already");
    billing.void_invoice("2025-10", "the wrong plan").await;
    billing.post_account("plan", &assign).await.is(200);
    billing.finalize_invoice("2025-10").await;
    let finalized = billing.get_json("invoices/2025-10", "").await;
    assert_eq!((&finalized["status"], &finalized["total"]), (&json!("finalized"), &json!("79.46")));
    billing.service.close().await;
}

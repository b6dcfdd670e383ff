//! Validation of plans and access to the plan catalog.

use http_kit::{Caller, Role};
use serde_json::json;
use uuid::Uuid;

use crate::support::{Billing, team_plan};

#[tokio::test]
async fn invalid_plan_is_refused_with_pointer() {
    let billing = Billing::start().await;
    let cases = [
        (json!({ "currency": "EURO" }), "/currency"),
        (json!({ "charges": [{ "meter": "storage", "unit": "s", "model": "flat" }] }), "/charges/0/unit"),
        (json!({ "tax_percent": "200" }), "/tax_percent"),
        (json!({ "split": "half" }), "/split"),
    ];
    for (change, pointer) in cases {
        let mut body = team_plan("1");
        for (name, value) in change.as_object().unwrap() {
            body[name] = value.clone();
        }
        let problem = billing.post_admin("plans", &body).await.problem(422);
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
    }
    billing.post_admin("plans", &team_plan("0.1234567890123456789012345678901234567890")).await.problem(422);
    let owner = Caller::key(Uuid::now_v7(), billing.organization, Role::Owner);
    billing.service.post("/api/v1/admin/plans").by(&owner).json(&team_plan("1")).send().await.problem(403);
    billing.service.get("/api/v1/admin/plans").by(&owner).send().await.problem(403);
    billing.service.close().await;
}

//! Validation of usage and cost queries, and their documentation.

use axum::http::Method;
use epoch::Timestamp;
use serde_json::Value;

use crate::support::{Billing, default_prices, invoice_ledger};

#[tokio::test]
async fn invalid_query_returns_a_problem() {
    let billing = Billing::start().await;
    let cases = [
        ("from=yesterday", 400, "/problems/malformed-query"),
        ("to=2025-10-26", 400, "/problems/malformed-query"),
        ("as_of=", 400, "/problems/malformed-query"),
        ("known_at=now", 400, "/problems/malformed-query"),
        ("as_of=1761436800000", 400, "/problems/malformed-query"),
        ("timezone=UTC", 400, "/problems/malformed-query"),
        ("from=2025-10-01T00:00:00Z&from=2025-10-02T00:00:00Z", 400, "/problems/malformed-query"),
        ("from=2025-10-26T00:00:00%2B02:00&to=2025-10-25T22:00:00Z", 422, "/problems/unprocessable"),
        ("from=2025-10-27T00:00:00Z&to=2025-10-26T00:00:00Z", 422, "/problems/unprocessable"),
        ("from=2024-01-01T00:00:00Z&to=2025-10-26T00:00:00Z", 422, "/problems/unprocessable"),
        ("time_zone=Europe/Nowhere", 422, "/problems/unprocessable"),
        ("time_zone=../../etc/passwd", 422, "/problems/unprocessable"),
        ("time_zone=", 422, "/problems/unprocessable"),
    ];
    for resource in ["usage", "costs"] {
        for (query, status, kind) in cases {
            let problem =
                billing.service.get(billing.path(resource, query)).by(&billing.viewer).send().await.problem(status);
            assert_eq!(problem["type"], kind, "{query}: {problem}");
        }
        let malformed = billing.service.get(format!("/api/v1/organizations/mine/{resource}")).by(&billing.viewer);
        malformed.send().await.problem(400);
        let wrong_method = billing.service.request(Method::DELETE, billing.path(resource, "")).by(&billing.viewer);
        wrong_method.send().await.problem(405);
    }
    let unknown = billing.service.get(billing.path("receipts", "")).by(&billing.viewer);
    unknown.send().await.problem(404);
    billing.service.close().await;
}

#[tokio::test]
async fn query_parameters_are_all_documented() {
    let billing = Billing::start().await;
    let (_, document) = billing::http::router(billing::http::state::Api {
        ledger: invoice_ledger(&billing.service.pool, default_prices(), Timestamp::now),
        pool: billing.service.pool.clone(),
        secrets: billing.service.secrets().clone(),
    });
    let document: Value = serde_json::to_value(document).unwrap();
    for resource in ["usage", "costs"] {
        let operation = &document["paths"][format!("/api/v1/organizations/{{org}}/{resource}")]["get"];
        let parameters = operation["parameters"].as_array().unwrap();
        let names: Vec<_> = parameters.iter().map(|parameter| parameter["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["org", "from", "to", "time_zone", "as_of", "known_at"]);
        assert!(parameters.iter().all(|parameter| parameter["description"].is_string()), "{parameters:?}");
        assert!(operation["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].is_string());
    }
    billing.service.close().await;
}

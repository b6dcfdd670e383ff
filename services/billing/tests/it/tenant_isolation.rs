//! Isolation of organizations: callers read the billing data of their own organization only.

use epoch::Timestamp;
use http_kit::{Caller, Role};
use uuid::Uuid;

use crate::support::{AUTUMN_QUERY, Billing, at, id, october_customer};

#[tokio::test]
async fn usage_is_visible_to_its_organization_only() {
    let billing = Billing::start().await;
    let other = Uuid::now_v7();
    billing.file(id(1), "2025-10-26T10:00:00Z", billing.part(0, 1_000)).await;
    billing.job(id(11), "2025-10-26T23:00:00Z", billing.job_started(None)).await;
    publish_for(&billing, other, id(2), id(12), at("2025-10-26T23:00:00Z")).await;
    billing.wait_until_applied(2, 2).await;

    let mine = billing.get_json("usage", AUTUMN_QUERY).await;
    assert_eq!(mine["storage"]["files"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        (&mine["storage"]["files"][0]["file"], &mine["storage"]["byte_ms"]),
        (&id(1).to_string().into(), &"47700000000".into())
    );
    assert_eq!(mine["compute"]["jobs"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        (&mine["compute"]["jobs"][0]["job"], &mine["compute"]["run_ms"]),
        (&id(11).to_string().into(), &"900000".into())
    );

    let theirs = format!("/api/v1/organizations/{other}/usage?{AUTUMN_QUERY}");
    for resource in ["usage", "costs"] {
        let path = format!("/api/v1/organizations/{other}/{resource}?{AUTUMN_QUERY}");
        let refused = billing.service.get(&path).by(&billing.viewer).send().await.problem(404);
        assert!(!refused.to_string().contains("byte_ms"));
    }
    let member = Caller::key(Uuid::now_v7(), other, Role::Viewer);
    for caller in [member, Caller::operator(), Caller::service("console")] {
        let answer = billing.service.get(&theirs).by(&caller).send().await.expect(200).json();
        assert_eq!(answer["organization"], other.to_string());
        assert_eq!(
            (&answer["storage"]["byte_ms"], &answer["compute"]["run_ms"]),
            (&"4500000".into(), &"900000".into())
        );
    }
    billing.service.close().await;
}

#[tokio::test]
async fn anonymous_request_is_unauthorized() {
    let billing = Billing::start().await;
    for resource in ["usage", "costs"] {
        billing.service.get(billing.path(resource, AUTUMN_QUERY)).send().await.problem(401);
    }
    billing.service.close().await;
}

async fn publish_for(billing: &Billing, organization: Uuid, file: Uuid, job: Uuid, at: Timestamp) {
    let mut part = billing.part(0, 5);
    part.organization_id = organization;
    let mut started = billing.job_started(None);
    started.organization_id = organization;
    let service = &billing.service;
    service
        .publish(contracts::file::AGGREGATE, file, organization, at, &[contracts::file::FileEvent::from(part)])
        .await;
    service.publish(contracts::job::AGGREGATE, job, organization, at, &[contracts::job::JobEvent::from(started)]).await;
}

#[tokio::test]
async fn billing_is_hidden_from_other_organizations() {
    let billing = october_customer().await;
    let other = Caller::key(Uuid::now_v7(), Uuid::now_v7(), Role::Owner);
    for resource in ["account", "budget", "invoices", "invoices/2025-10", "invoices/2025-10/explanation"] {
        billing.service.get(billing.path(resource, "")).by(&other).send().await.problem(404);
        billing.service.get(billing.path(resource, "")).by(&billing.viewer).send().await.is(200);
    }
    billing.service.get(billing.path("invoices/2025-13", "")).by(&billing.viewer).send().await.problem(422);
    billing.service.close().await;
}

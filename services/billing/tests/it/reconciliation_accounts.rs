//! Reconciliation of the account, plan and invoice tables with the events that they project.

use axum::http::Method;
use epoch::FastPath;
use epoch_postgres::PgStore;
use http_kit::{Caller, Role};
use serde_json::{Value, json};
use usage::reconciliation::accounts;
use uuid::Uuid;

use crate::{
    reconciliation_report::{damage, differences, report},
    support::{Billing, id, october_customer, team_plan},
};

/// Opens an account with a budget, a plan of two versions, a retired plan, and three invoices.
///
/// The October invoice is corrected, the November invoice settles the correction, and the December invoice is void.
pub(crate) async fn billed_customer() -> Billing {
    let billing = october_customer().await;
    let team = billing.assign_plan(&team_plan("0.01")).await;
    billing.post_admin(&format!("plans/{team}/versions"), &team_plan("0.02")).await.is(200);
    let retired = billing.publish_plan(&team_plan("0.03")).await;
    billing.post_admin(&format!("plans/{retired}/retire"), &json!({ "reason": "sold out" })).await.is(200);
    let admin = Caller::key(Uuid::now_v7(), billing.organization, Role::Admin);
    let budget = billing.service.request(Method::PUT, billing.path("budget", "")).by(&admin);
    budget.json(&json!({ "amount": "1000" })).send().await.is(200);
    billing.finalize_invoice("2025-10").await;
    billing.job(id(12), "2025-10-05T08:00:00Z", billing.job_started(None)).await;
    billing.job(id(12), "2025-10-05T09:00:00Z", billing.job_succeeded()).await;
    billing.wait_until_applied(2, 4).await;
    billing.finalize_invoice("2025-11").await;
    billing.finalize_invoice("2025-12").await;
    billing.void_invoice("2025-12", "a mistake").await;
    let events = "select count(*) from events where aggregate in ('billing_account', 'plan', 'invoice')";
    let all: i64 = sqlx::query_scalar(events).fetch_one(&billing.service.pool).await.unwrap();
    billing.service.eventually(async || (billing.applied_events("accounts").await == all).then_some(())).await;
    billing
}

/// Steps the check, concurrently with the service, until another full round is done. Returns the differences.
async fn check_accounts(billing: &Billing) -> Vec<Value> {
    let store = PgStore::new(billing.service.pool.clone(), FastPath::new()).0;
    let round = report(billing).await["accounts"]["round"].as_i64().unwrap();
    loop {
        accounts::check_next(&store).await.unwrap();
        let report = report(billing).await;
        if report["accounts"]["round"].as_i64().unwrap() >= round + 2 {
            return differences(&report, "accounts").into_iter().cloned().collect();
        }
    }
}

async fn query_id(billing: &Billing, query: &'static str) -> Uuid {
    sqlx::query_scalar(query).fetch_one(&billing.service.pool).await.unwrap()
}

#[tokio::test]
async fn account_check_finds_tables_equal_to_their_events() {
    let billing = billed_customer().await;
    assert_eq!(check_accounts(&billing).await, Vec::<Value>::new());
    let report = report(&billing).await;
    let side = &report["accounts"];
    // One account, two plans and three invoices have a row and a cursor each.
    assert!(side["rows_compared"].as_i64().unwrap() >= 12 && side["checks"].as_i64().unwrap() > 0, "{side}");
    assert_eq!((&report["equal"], &side["difference_count"]), (&json!(true), &json!(0)));
    assert!(side["last_check_at"].is_string() && side["round_began_at"].is_string(), "{side}");
    let rows = "select count(*) from invoices where adjustments = 2 or status = 'void'";
    let rows: i64 = sqlx::query_scalar(rows).fetch_one(&billing.service.pool).await.unwrap();
    assert_eq!(rows, 2, "one invoice is corrected and one is void");
    billing.service.close().await;
}

#[tokio::test]
async fn account_check_names_each_corrupt_row() {
    let billing = billed_customer().await;
    let organization = billing.organization;
    let of_account = format!("billing_accounts {organization}");
    let team = format!("plans {}", query_id(&billing, "select id from plans where newest = 2").await);
    let retired = format!("plans {}", query_id(&billing, "select id from plans where retired").await);
    let corrected = format!("invoices {}", query_id(&billing, "select id from invoices where adjustments = 2").await);
    let void = format!("invoices {}", query_id(&billing, "select id from invoices where status = 'void'").await);
    let [extra, plans, invoices] = [format!("billing_accounts {}", id(77)), "plans".to_owned(), "invoices".to_owned()];
    let (extra_plan, extra_invoice) = (format!("plans {}", id(77)), format!("invoices {}", id(77)));
    let unknown = id(77);
    // Table, corruption (`T` stands for the table), expected place, and parts of the stored and the recomputed text.
    let corruptions: Vec<(&str, String, &str, &str, &str)> = vec![
        (
            "billing_accounts",
            "update T set currency = 'USD'".into(),
            &of_account,
            "currency \"USD\"",
            "currency \"EUR\"",
        ),
        (
            "billing_accounts",
            "update T set has_budget = false".into(),
            &of_account,
            "has_budget false",
            "has_budget true",
        ),
        ("billing_accounts", "update T set version = version - 1".into(), &of_account, "version ", "version "),
        ("billing_accounts", "delete from T".into(), &of_account, "nothing", "currency \"EUR\""),
        (
            "billing_accounts",
            format!("insert into T (organization_id, currency, version) values ('{unknown}', 'EUR', 1)"),
            &extra,
            "currency \"EUR\"",
            "nothing",
        ),
        (&plans, "update T set name = 'Other' where newest = 2".into(), &team, "name \"Other\"", "name \"Team <b>\""),
        (&plans, "update T set newest = 1 where newest = 2".into(), &team, "newest 1", "newest 2"),
        (&plans, "update T set currency = 'JPY' where newest = 2".into(), &team, "\"JPY\"", "\"EUR\""),
        (&plans, "update T set published_at = 7 where newest = 2".into(), &team, "published_at 7", "published_at 1"),
        (&plans, "update T set retired = true where newest = 2".into(), &team, "retired true", "retired false"),
        (&plans, "update T set retired = false where retired".into(), &retired, "retired false", "retired true"),
        (&plans, "delete from T where retired".into(), &retired, "nothing", "retired true"),
        (
            &plans,
            format!(
                "insert into T select '{unknown}', name, currency, newest, retired, published_at, version from T where newest = 2"
            ),
            &extra_plan,
            "name \"Team <b>\"",
            "nothing",
        ),
        (
            &invoices,
            "update T set status = 'draft' where adjustments = 2".into(),
            &corrected,
            "status \"draft\"",
            "status \"finalized\"",
        ),
        (&invoices, "update T set number = 77 where adjustments = 2".into(), &corrected, "number 77", "number 1"),
        (
            &invoices,
            "update T set total = '0.01' where adjustments = 2".into(),
            &corrected,
            "total \"0.01\"",
            "total \"39.86\"",
        ),
        (
            &invoices,
            "update T set total = null where adjustments = 2".into(),
            &corrected,
            "total null",
            "total \"39.86\"",
        ),
        (&invoices, "update T set currency = 'JPY' where adjustments = 2".into(), &corrected, "\"JPY\"", "\"EUR\""),
        (&invoices, "update T set month = '2024-10' where adjustments = 2".into(), &corrected, "2024-10", "2025-10"),
        (
            &invoices,
            "update T set adjustments = 0 where adjustments = 2".into(),
            &corrected,
            "adjustments 0",
            "adjustments 2",
        ),
        (
            &invoices,
            format!("update T set organization_id = '{unknown}' where adjustments = 2"),
            &corrected,
            "00000000004d",
            "organization_id",
        ),
        (
            &invoices,
            "update T set credit_note = null where status = 'void'".into(),
            &void,
            "credit_note null",
            "credit_note 4",
        ),
        (&invoices, "delete from T where status = 'void'".into(), &void, "nothing", "status \"void\""),
        (
            &invoices,
            format!(
                "insert into T (id, organization_id, month, status, version) values ('{unknown}', '{organization}', '2025-10', 'draft', 1)"
            ),
            &extra_invoice,
            "status \"draft\"",
            "nothing",
        ),
    ];
    for (table, corruption, place, stored, recomputed) in corruptions {
        let corruption = corruption.replace(" T", &format!(" {table}"));
        damage(&billing, &format!("create table saved as select * from {table}; {corruption}")).await;
        let differences = check_accounts(&billing).await;
        assert_eq!(differences.len(), 1, "{corruption}: {differences:?}");
        let text = |field: &str| differences[0][field].as_str().unwrap();
        assert_eq!(text("place"), place, "{corruption}");
        assert!(
            text("kept").contains(stored) && text("recomputed").contains(recomputed),
            "{corruption}: {differences:?}"
        );
        assert_ne!(text("kept"), text("recomputed"));
        if place == corrected {
            assert_eq!(differences[0]["organization"], organization.to_string(), "{corruption}");
        }
        damage(&billing, &format!("delete from {table}; insert into {table} select * from saved; drop table saved"))
            .await;
        assert_eq!(check_accounts(&billing).await, Vec::<Value>::new(), "{corruption}");
    }
    billing.service.close().await;
}

#[tokio::test]
async fn lagging_projection_is_a_difference_after_a_day() {
    let billing = billed_customer().await;
    let organization = billing.organization;
    // The last event of the account, and all events of a plan, are not yet applied.
    let (last, retired): (i64, Uuid) = {
        let query = "select version from billing_accounts";
        let last = sqlx::query_scalar(query).fetch_one(&billing.service.pool).await.unwrap();
        (last, query_id(&billing, "select id from plans where retired").await)
    };
    damage(
        &billing,
        &format!(
            "update cursors set version = version - 1 where subscription = 'accounts' and aggregate_id = '{organization}'; \
             update billing_accounts set version = version - 1; \
             delete from cursors where subscription = 'accounts' and aggregate_id = '{retired}'; \
             delete from plans where id = '{retired}'"
        ),
    )
    .await;
    assert_eq!(check_accounts(&billing).await, Vec::<Value>::new());

    let aged = format!(
        "update events set recorded_at = recorded_at - 90000000 where aggregate_id in ('{retired}', '{organization}')"
    );
    damage(&billing, &aged).await;
    let differences = check_accounts(&billing).await;
    let mut differences: Vec<_> = differences
        .iter()
        .map(|difference| ["place", "kept", "recomputed"].map(|field| difference[field].as_str().unwrap()))
        .collect();
    differences.sort_unstable();
    let expected = [
        [
            format!("cursors of accounts billing_account {organization}"),
            format!("version {}", last - 1),
            format!("version {last}"),
        ],
        [format!("cursors of accounts plan {retired}"), "version 0".to_owned(), "version 2".to_owned()],
    ];
    assert_eq!(differences, expected);
    billing.service.close().await;
}

#[tokio::test]
async fn account_check_reports_a_stream_gap_and_continues() {
    let billing = billed_customer().await;
    let team = query_id(&billing, "select id from plans where newest = 2").await;
    let void = query_id(&billing, "select id from invoices where status = 'void'").await;
    damage(
        &billing,
        &format!(
            "create table removed as select * from events where aggregate_id = '{team}' and version = 1; \
             delete from events where event_id in (select event_id from removed); \
             update invoices set number = 77 where id = '{void}'"
        ),
    )
    .await;
    let differences = check_accounts(&billing).await;
    let mut differences: Vec<_> =
        differences.iter().map(|difference| difference["place"].as_str().unwrap().to_owned()).collect();
    differences.sort_unstable();
    assert_eq!(differences, [format!("invoices {void}"), format!("stream of plan {team}")]);
    billing.service.close().await;
}

/// Each table has more extra rows than one step checks, with ids between the ids of the log.
#[tokio::test]
async fn account_check_visits_all_ids_of_log_and_tables() {
    let billing = billed_customer().await;
    damage(
        &billing,
        "insert into invoices (id, organization_id, month, status, version) \
             select gen_random_uuid(), gen_random_uuid(), '2025-10', 'draft', 1 from generate_series(1, 250); \
         insert into plans (id, name, currency, newest, published_at, version) \
             select gen_random_uuid(), 'none', 'EUR', 1, 1, 1 from generate_series(1, 60); \
         delete from billing_accounts",
    )
    .await;
    check_accounts(&billing).await;
    let report = report(&billing).await;
    assert_eq!(report["accounts"]["difference_count"], 250 + 60 + 1, "{}", report["accounts"]);
    billing.service.close().await;
}

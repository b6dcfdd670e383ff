//! What is kept, compared with recomputation.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, Command},
    time::Duration,
};

use axum::http::Method;
use epoch::{FastPath, testkit::free_ports};
use epoch_postgres::PgStore;
use http_kit::{Caller, Role};
use serde_json::{Value, json};
use service_host::testkit::SECRET;
use usage::reconciliation::{accounts, rollups::check_next};
use uuid::Uuid;

use crate::{
    accounts::{customer, plan},
    support::{Billing, few_changes_are, id},
};

const PATH: &str = "/api/v1/admin/metering/reconciliation";

async fn state(billing: &Billing) -> Value {
    billing.service.get(PATH).by(&Caller::operator()).send().await.expect(200).json()
}

/// Takes steps, beside those of the service itself, until all has been looked at once more, from its beginning to its end.
async fn looked_at_all(billing: &Billing) -> Value {
    let round = state(billing).await["sums"]["round"].as_i64().unwrap();
    loop {
        // While the service takes a step itself there is nothing to do.
        check_next(&billing.service.pool).await.unwrap();
        let state = state(billing).await;
        if state["sums"]["round"].as_i64().unwrap() >= round + 2 {
            return state;
        }
    }
}

async fn used(billing: &Billing) {
    few_changes_are(&billing.service.pool, 1).await;
    billing.file(id(1), "2025-10-26T10:00:00Z", billing.part(0, 1_000)).await;
    billing.file(id(1), "2025-10-26T11:00:00Z", billing.deleted(1_500)).await;
    billing.file(id(2), "2025-10-26T10:00:00.123Z", billing.part(0, 77)).await;
    billing.job(id(11), "2025-10-26T10:00:00Z", billing.job_created()).await;
    billing.job(id(11), "2025-10-26T10:00:00Z", billing.job_started(Some(id(21)))).await;
    billing.job(id(11), "2025-10-26T12:00:00Z", billing.job_succeeded()).await;
    billing.job(id(12), "2025-10-26T12:00:00Z", billing.job_started(None)).await;
    billing.job(id(12), "2025-10-26T11:00:00Z", billing.job_succeeded()).await;
    billing.caught_up(3, 5).await;
}

#[tokio::test]
async fn finds_nothing_where_nothing_is_wrong() {
    let billing = Billing::start().await;
    used(&billing).await;
    let state = looked_at_all(&billing).await;
    assert_eq!((&state["equal"], &state["difference_count"]), (&true.into(), &0.into()), "{state}");
    assert!(
        state["sums"]["rows_compared"].as_i64().unwrap() > 20 && state["sums"]["checks"].as_i64().unwrap() > 0,
        "{state}"
    );
    assert!(state["sums"]["last_check_at"].is_string());
    billing.service.close().await;
}

#[tokio::test]
async fn finds_every_kind_of_row_that_is_wrong_and_sees_it_put_right() {
    let billing = Billing::start().await;
    used(&billing).await;
    let wrong = [
        (
            "update metering_storage_sums set s1 = s1 + 1 where width = 0",
            "update metering_storage_sums set s1 = s1 - 1 where width = 0",
        ),
        (
            "update metering_storage_sums set s0 = s0 + 1 where width = 1",
            "update metering_storage_sums set s0 = s0 - 1 where width = 1",
        ),
        (
            "update metering_run_sums set s0 = s0 + 1 where scope = 1 and width = 2",
            "update metering_run_sums set s0 = s0 - 1 where scope = 1 and width = 2",
        ),
        (
            "update metering_run_sums set s0 = s0 + 1 where scope = 0 and width = 3",
            "update metering_run_sums set s0 = s0 - 1 where scope = 0 and width = 3",
        ),
        ("update runs set number = number + 100", "update runs set number = number - 100"),
        (
            "update runs set started_recorded_at = started_recorded_at + 1",
            "update runs set started_recorded_at = started_recorded_at - 1",
        ),
        ("update metering_files set s1 = s1 + 1", "update metering_files set s1 = s1 - 1"),
        ("update metering_files set changes = changes + 1", "update metering_files set changes = changes - 1"),
        (
            "update metering_file_sums set s0 = s0 + 1 where width = 0",
            "update metering_file_sums set s0 = s0 - 1 where width = 0",
        ),
        (
            "update metering_file_sums set bucket = bucket + 1 where width = 3",
            "update metering_file_sums set bucket = bucket - 1 where width = 3",
        ),
        (
            // Sums that a file of few changes hasn't, and none where there should be.
            "update metering_files set has_sums = not has_sums where not has_sums",
            "update metering_files set has_sums = false where changes = 1",
        ),
        ("update metering_files set lowest = lowest - 1", "update metering_files set lowest = lowest + 1"),
        (
            "update metering_run_sums set bucket = bucket + 1 where scope = 3 and width = 0",
            "update metering_run_sums set bucket = bucket - 1 where scope = 3 and width = 0",
        ),
    ];
    for (corrupt, repair) in wrong {
        let changed = sqlx::raw_sql(corrupt).execute(&billing.service.pool).await.unwrap().rows_affected();
        assert!(changed > 0, "{corrupt}");
        let state = looked_at_all(&billing).await;
        assert_eq!(state["equal"], false, "{corrupt}: {state}");
        let difference = &state["differences"][0];
        assert_eq!(difference["organization"], billing.organization.to_string());
        assert_ne!(difference["kept"], difference["recomputed"]);
        sqlx::raw_sql(repair).execute(&billing.service.pool).await.unwrap();
        let state = looked_at_all(&billing).await;
        assert_eq!(state["equal"], true, "{repair}: {state}");
    }
    let lost =
        sqlx::raw_sql("delete from metering_run_sums where width = 0").execute(&billing.service.pool).await.unwrap();
    assert!(lost.rows_affected() > 0);
    let state = looked_at_all(&billing).await;
    assert_eq!(state["differences"][0]["kept"], "nothing", "{state}");
    billing.service.close().await;
}

/// The differences of a side.
fn differences<'a>(state: &'a Value, side: &str) -> Vec<&'a Value> {
    let all = state["differences"].as_array().unwrap().iter();
    all.filter(|difference| difference["side"] == side).collect()
}

async fn damaged(billing: &Billing, damage: &str) {
    let done = sqlx::raw_sql(sqlx::AssertSqlSafe(damage.to_owned())).execute(&billing.service.pool).await.unwrap();
    assert!(done.rows_affected() > 0, "{damage}");
}

#[tokio::test]
async fn finds_and_names_every_machine_type_that_is_wrong() {
    let billing = Billing::start().await;
    used(&billing).await;
    let fast = contracts::job::JobStarted { machine_type: "fast".into(), ..billing.job_started(None) };
    billing.job(id(13), "2025-10-26T12:00:00Z", fast).await;
    billing.caught_up(3, 6).await;
    assert_eq!(looked_at_all(&billing).await["equal"], true);
    let of = async |name: &str| -> String {
        let query = "select machine_type_id($1)::text";
        sqlx::query_scalar(query).bind(name).fetch_one(&billing.service.pool).await.unwrap()
    };
    let (fast, slow) = (of("fast").await, of("slow").await);
    let nobody = id(77).to_string();
    // Which rows are wrong, what is kept there, and what should be.
    let wrong: [(&str, &[[&str; 3]]); 4] = [
        ("update machine_types set name = 'slow' where name = 'fast'", &[[&fast, "slow", "fast"]]),
        ("delete from machine_types where name = 'fast'", &[[&fast, "nothing", "fast"]]),
        ("insert into machine_types values (machine_type_id('slow'), 'slow')", &[[&slow, "slow", "nothing"]]),
        (
            "update machine_types set id = '01990000-0000-7000-8000-00000000004d' where name = 'fast'",
            &[[&nobody, "fast", "nothing"], [&fast, "nothing", "fast"]],
        ),
    ];
    for (damage, expected) in wrong {
        damaged(&billing, &format!("create table saved as select * from machine_types; {damage}")).await;
        let state = looked_at_all(&billing).await;
        let found: Vec<_> = differences(&state, "sums")
            .into_iter()
            .map(|found| ["place", "kept", "recomputed"].map(|field| found[field].as_str().unwrap().to_owned()))
            .collect();
        let mut expected: Vec<_> = expected
            .iter()
            .map(|[id, kept, made]| [format!("machine_types {id}"), (*kept).to_owned(), (*made).to_owned()])
            .collect();
        expected.sort_unstable();
        assert_eq!(found, expected, "{damage}");
        damaged(
            &billing,
            "delete from machine_types; insert into machine_types select * from saved; drop table saved; select 1",
        )
        .await;
        assert_eq!(looked_at_all(&billing).await["equal"], true, "{damage}");
    }
    billing.service.close().await;
}

/// An account with a budget, a plan of two versions and one that is retired, and three invoices: one that was corrected, one that
/// settles that, one that is void.
async fn billed() -> Billing {
    let billing = customer().await;
    let team = billing.assigned(&plan("0.01")).await;
    billing.admin(&format!("plans/{team}/versions"), &plan("0.02")).await.is(200);
    let old = billing.admin("plans", &plan("0.03")).await.expect(201).json()["id"].as_str().unwrap().to_owned();
    billing.admin(&format!("plans/{old}/retire"), &json!({ "reason": "sold out" })).await.is(200);
    let admin = Caller::key(Uuid::now_v7(), billing.organization, Role::Admin);
    let budget = billing.service.request(Method::PUT, billing.path("budget", "")).by(&admin);
    budget.json(&json!({ "amount": "1000" })).send().await.is(200);
    let invoice = |month: &str, what: &str| format!("organizations/{}/invoices/{month}/{what}", billing.organization);
    billing.admin(&invoice("2025-10", "finalize"), &Value::Null).await.is(200);
    billing.job(id(12), "2025-10-05T08:00:00Z", billing.job_started(None)).await;
    billing.job(id(12), "2025-10-05T09:00:00Z", billing.job_succeeded()).await;
    billing.caught_up(2, 4).await;
    billing.admin(&invoice("2025-11", "finalize"), &Value::Null).await.is(200);
    billing.admin(&invoice("2025-12", "finalize"), &Value::Null).await.is(200);
    billing.admin(&invoice("2025-12", "void"), &json!({ "reason": "a mistake" })).await.is(200);
    let events = "select count(*) from events where aggregate in ('billing_account', 'plan', 'invoice')";
    let all: i64 = sqlx::query_scalar(events).fetch_one(&billing.service.pool).await.unwrap();
    billing.service.eventually(async || (billing.applied("accounts").await == all).then_some(())).await;
    billing
}

/// The same of accounts, plans and invoices; gives what differs.
async fn accounts_looked_at(billing: &Billing) -> Vec<Value> {
    let store = PgStore::new(billing.service.pool.clone(), FastPath::new()).0;
    let round = state(billing).await["accounts"]["round"].as_i64().unwrap();
    loop {
        accounts::check_next(&store).await.unwrap();
        let state = state(billing).await;
        if state["accounts"]["round"].as_i64().unwrap() >= round + 2 {
            return differences(&state, "accounts").into_iter().cloned().collect();
        }
    }
}

async fn one(billing: &Billing, query: &'static str) -> Uuid {
    sqlx::query_scalar(query).fetch_one(&billing.service.pool).await.unwrap()
}

#[tokio::test]
async fn accounts_plans_and_invoices_are_what_their_events_make() {
    let billing = billed().await;
    assert_eq!(accounts_looked_at(&billing).await, Vec::<Value>::new());
    let state = state(&billing).await;
    let side = &state["accounts"];
    // A row and a cursor each of an account, two plans and three invoices.
    assert!(side["rows_compared"].as_i64().unwrap() >= 12 && side["checks"].as_i64().unwrap() > 0, "{side}");
    assert_eq!((&state["equal"], &side["difference_count"]), (&json!(true), &json!(0)));
    assert!(side["last_check_at"].is_string() && side["round_began_at"].is_string(), "{side}");
    let rows = "select count(*) from invoices where adjustments = 2 or status = 'void'";
    let rows: i64 = sqlx::query_scalar(rows).fetch_one(&billing.service.pool).await.unwrap();
    assert_eq!(rows, 2, "one is corrected and one is void");
    billing.service.close().await;
}

#[tokio::test]
async fn finds_and_names_every_row_of_accounts_plans_and_invoices_that_is_wrong() {
    let billing = billed().await;
    let organization = billing.organization;
    let of_account = format!("billing_accounts {organization}");
    let team = format!("plans {}", one(&billing, "select id from plans where newest = 2").await);
    let old = format!("plans {}", one(&billing, "select id from plans where retired").await);
    let corrected = format!("invoices {}", one(&billing, "select id from invoices where adjustments = 2").await);
    let void = format!("invoices {}", one(&billing, "select id from invoices where status = 'void'").await);
    let [extra, plans, invoices] = [format!("billing_accounts {}", id(77)), "plans".to_owned(), "invoices".to_owned()];
    let (extra_plan, extra_invoice) = (format!("plans {}", id(77)), format!("invoices {}", id(77)));
    let nobody = id(77);
    // Which table, how it is damaged, which row that is, and what of it is kept and should be.
    let wrong: Vec<(&str, String, &str, &str, &str)> = vec![
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
            format!("insert into T (organization_id, currency, version) values ('{nobody}', 'EUR', 1)"),
            &extra,
            "currency \"EUR\"",
            "nothing",
        ),
        (&plans, "update T set name = 'Other' where newest = 2".into(), &team, "name \"Other\"", "name \"Team <b>\""),
        (&plans, "update T set newest = 1 where newest = 2".into(), &team, "newest 1", "newest 2"),
        (&plans, "update T set currency = 'JPY' where newest = 2".into(), &team, "\"JPY\"", "\"EUR\""),
        (&plans, "update T set published_at = 7 where newest = 2".into(), &team, "published_at 7", "published_at 1"),
        (&plans, "update T set retired = true where newest = 2".into(), &team, "retired true", "retired false"),
        (&plans, "update T set retired = false where retired".into(), &old, "retired false", "retired true"),
        (&plans, "delete from T where retired".into(), &old, "nothing", "retired true"),
        (
            &plans,
            format!(
                "insert into T select '{nobody}', name, currency, newest, retired, published_at, version from T where newest = 2"
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
            format!("update T set organization_id = '{nobody}' where adjustments = 2"),
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
                "insert into T (id, organization_id, month, status, version) values ('{nobody}', '{organization}', '2025-10', 'draft', 1)"
            ),
            &extra_invoice,
            "status \"draft\"",
            "nothing",
        ),
    ];
    for (table, damage, place, kept, recomputed) in wrong {
        let damage = damage.replace(" T", &format!(" {table}"));
        damaged(&billing, &format!("create table saved as select * from {table}; {damage}")).await;
        let found = accounts_looked_at(&billing).await;
        assert_eq!(found.len(), 1, "{damage}: {found:?}");
        let text = |field: &str| found[0][field].as_str().unwrap();
        assert_eq!(text("place"), place, "{damage}");
        assert!(text("kept").contains(kept) && text("recomputed").contains(recomputed), "{damage}: {found:?}");
        assert_ne!(text("kept"), text("recomputed"));
        if place == corrected {
            assert_eq!(found[0]["organization"], organization.to_string(), "{damage}");
        }
        damaged(&billing, &format!("delete from {table}; insert into {table} select * from saved; drop table saved"))
            .await;
        assert_eq!(accounts_looked_at(&billing).await, Vec::<Value>::new(), "{damage}");
    }
    billing.service.close().await;
}

#[tokio::test]
async fn a_projection_that_is_behind_is_no_difference_until_it_is_a_day() {
    let billing = billed().await;
    let organization = billing.organization;
    // The account's last event, and a whole plan, are still on their way.
    let (last, old): (i64, Uuid) = {
        let query = "select version from billing_accounts";
        let last = sqlx::query_scalar(query).fetch_one(&billing.service.pool).await.unwrap();
        (last, one(&billing, "select id from plans where retired").await)
    };
    damaged(
        &billing,
        &format!(
            "update cursors set version = version - 1 where subscription = 'accounts' and aggregate_id = '{organization}'; \
             update billing_accounts set version = version - 1; \
             delete from cursors where subscription = 'accounts' and aggregate_id = '{old}'; \
             delete from plans where id = '{old}'"
        ),
    )
    .await;
    assert_eq!(accounts_looked_at(&billing).await, Vec::<Value>::new());

    let aged = format!(
        "update events set recorded_at = recorded_at - 90000000 where aggregate_id in ('{old}', '{organization}')"
    );
    damaged(&billing, &aged).await;
    let found = accounts_looked_at(&billing).await;
    let mut found: Vec<_> =
        found.iter().map(|found| ["place", "kept", "recomputed"].map(|field| found[field].as_str().unwrap())).collect();
    found.sort_unstable();
    let expected = [
        [
            format!("cursors of accounts billing_account {organization}"),
            format!("version {}", last - 1),
            format!("version {last}"),
        ],
        [format!("cursors of accounts plan {old}"), "version 0".to_owned(), "version 2".to_owned()],
    ];
    assert_eq!(found, expected);
    billing.service.close().await;
}

#[tokio::test]
async fn a_stream_with_a_hole_is_named_and_holds_up_no_other() {
    let billing = billed().await;
    let team = one(&billing, "select id from plans where newest = 2").await;
    let void = one(&billing, "select id from invoices where status = 'void'").await;
    damaged(
        &billing,
        &format!(
            "create table taken as select * from events where aggregate_id = '{team}' and version = 1; \
             delete from events where event_id in (select event_id from taken); \
             update invoices set number = 77 where id = '{void}'"
        ),
    )
    .await;
    let found = accounts_looked_at(&billing).await;
    let mut found: Vec<_> = found.iter().map(|found| found["place"].as_str().unwrap().to_owned()).collect();
    found.sort_unstable();
    assert_eq!(found, [format!("invoices {void}"), format!("stream of plan {team}")]);
    billing.service.close().await;
}

/// More of each kind than one step looks at, by ids that lie between each other.
#[tokio::test]
async fn walks_all_ids_of_the_log_and_of_the_tables() {
    let billing = billed().await;
    damaged(
        &billing,
        "insert into invoices (id, organization_id, month, status, version) \
             select gen_random_uuid(), gen_random_uuid(), '2025-10', 'draft', 1 from generate_series(1, 250); \
         insert into plans (id, name, currency, newest, published_at, version) \
             select gen_random_uuid(), 'none', 'EUR', 1, 1, 1 from generate_series(1, 60); \
         delete from billing_accounts",
    )
    .await;
    accounts_looked_at(&billing).await;
    let state = state(&billing).await;
    assert_eq!(state["accounts"]["difference_count"], 250 + 60 + 1, "{}", state["accounts"]);
    billing.service.close().await;
}

/// A process of billing that runs the checks, and nothing that others would ask it.
struct Checking {
    process: Child,
    address: SocketAddr,
}

impl Checking {
    fn start(billing: &Billing) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], free_ports()));
        let mut command = Command::new(env!("CARGO_BIN_EXE_billing"));
        command.args(["project", "--bus", "postgres", "--listen", &address.to_string()]);
        command.env("CATACLOUD_LOG", "off").env("CATACLOUD_SECRET", SECRET);
        command.env("DATABASE_URL", billing.service.database.url());
        Self { process: command.spawn().unwrap(), address }
    }

    /// A gauge or counter at `/metrics`; `None` when there is none yet.
    async fn metric(&self, series: &str) -> Option<String> {
        let (address, series) = (self.address, series.to_owned());
        let read = move || {
            let mut connection = TcpStream::connect(address).ok()?;
            connection.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
            let request = "GET /metrics HTTP/1.1\r\nhost: billing\r\nconnection: close\r\n\r\n";
            connection.write_all(request.as_bytes()).ok()?;
            let mut answer = String::new();
            connection.read_to_string(&mut answer).ok()?;
            answer.lines().find_map(|line| line.strip_prefix(&series)?.strip_prefix(' ').map(str::to_owned))
        };
        tokio::task::spawn_blocking(read).await.unwrap()
    }

    async fn reaches(&self, billing: &Billing, side: &str, value: &str) {
        let series = format!("billing_reconciliation_differences{{side=\"{side}\"}}");
        let reached = async || (self.metric(&series).await.as_deref() == Some(value)).then_some(());
        billing.service.eventually(reached).await;
    }
}

impl Drop for Checking {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn a_metric_says_how_many_differences_there_are() {
    let billing = billed().await;
    let checking = Checking::start(&billing);
    for side in ["sums", "accounts"] {
        checking.reaches(&billing, side, "0").await;
    }
    damaged(&billing, "update invoices set number = number + 100 where number is not null").await;
    damaged(&billing, "update machine_types set name = 'other'").await;
    checking.reaches(&billing, "accounts", "3").await;
    checking.reaches(&billing, "sums", "1").await;
    let different = "billing_reconciliation_checks_total{side=\"accounts\",result=\"different\"}";
    let counted = async || checking.metric(different).await.filter(|count| count != "0");
    billing.service.eventually(counted).await;
    damaged(&billing, "update invoices set number = number - 100 where number is not null").await;
    damaged(&billing, "update machine_types set name = 'default'").await;
    for side in ["sums", "accounts"] {
        checking.reaches(&billing, side, "0").await;
    }
    billing.service.close().await;
}

#[tokio::test]
async fn is_for_operators() {
    let billing = Billing::start().await;
    billing.service.get(PATH).by(&billing.viewer).send().await.problem(403);
    billing.service.get(PATH).send().await.problem(401);
    billing.service.close().await;
}

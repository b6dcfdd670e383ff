//! The reconciliation report, and helpers to read it and to cause differences.

use http_kit::Caller;
use serde_json::Value;

use crate::support::Billing;

const PATH: &str = "/api/v1/admin/metering/reconciliation";

pub(crate) async fn report(billing: &Billing) -> Value {
    billing.service.get(PATH).by(&Caller::operator()).send().await.expect(200).json()
}

/// Returns the reported differences of one side: `sums` (rollups), `accounts` or `copy`.
pub(crate) fn differences<'a>(report: &'a Value, side: &str) -> Vec<&'a Value> {
    let all = report["differences"].as_array().unwrap().iter();
    all.filter(|difference| difference["side"] == side).collect()
}

/// Runs SQL that must change at least one row.
pub(crate) async fn damage(billing: &Billing, sql: &str) {
    let done = sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(&billing.service.pool).await.unwrap();
    assert!(done.rows_affected() > 0, "{sql}");
}

#[tokio::test]
async fn reconciliation_is_restricted_to_operators() {
    let billing = Billing::start().await;
    billing.service.get(PATH).by(&billing.viewer).send().await.problem(403);
    billing.service.get(PATH).send().await.problem(401);
    billing.service.close().await;
}

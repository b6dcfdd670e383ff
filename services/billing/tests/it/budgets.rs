//! Budget alerts, the hard stop and the daily totals, with a clock that the test moves.

use axum::http::Method;
use billing::{
    background::budgets::{LOOK_BACK, round},
    invoicing::ledger::Ledger,
};
use contracts::file::FilePartUploaded;
use epoch::{CommandContext, Timestamp};
use http_kit::{Caller, Role};
use rating::{
    account::AccountCommand,
    calendar::{month::Month, span::Span},
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{
    Billing, DAY, HOUR, TestClock, at, default_prices, id, invoice_ledger, october_customer, team_plan,
};

/// An organization with an account, and budget rounds that run when the test calls them.
struct BudgetRounds {
    billing: Billing,
    ledger: Ledger,
    clock: TestClock,
}

impl BudgetRounds {
    async fn start() -> Self {
        let billing = Billing::start().await;
        billing.open_account().await;
        billing.wait_for_listed_accounts(1).await;
        let clock = TestClock::starting_at(Timestamp::now().as_millis());
        let ledger = invoice_ledger(&billing.service.pool, default_prices(), clock.reader());
        Self { billing, ledger, clock }
    }

    /// Returns the current month by the test clock, and its period.
    async fn month(&self) -> (Month, Span) {
        let account = self.ledger.account(self.billing.organization).await.unwrap();
        let month = self.ledger.current_month(&account).unwrap();
        (month, self.ledger.period(&account, month).unwrap().0)
    }

    async fn set_budget(&self, budget: Value) {
        let admin = Caller::key(Uuid::now_v7(), self.billing.organization, Role::Admin);
        let set = self.billing.service.request(Method::PUT, self.billing.path("budget", "")).by(&admin).json(&budget);
        set.send().await.is(200);
    }

    async fn run_round_at(&self, millis: i64) {
        self.clock.set(millis);
        round(&self.ledger).await.unwrap();
    }

    /// Returns month, kind and threshold of each recorded alert.
    async fn alerts(&self) -> Vec<String> {
        let budget = self.billing.get_json("budget", "").await;
        let alerts = budget["alerts"].as_array().unwrap().iter();
        let text = |alert: &Value, name: &str| alert[name].as_str().unwrap().to_owned();
        alerts.map(|alert| format!("{} {} {}", text(alert, "month"), text(alert, "kind"), alert["threshold"])).collect()
    }

    async fn daily_totals(&self) -> Value {
        self.billing.get_json("account", "").await["metered"].clone()
    }

    async fn run_job(&self, job: Uuid, start: i64, end: i64) {
        let instant = |millis| Timestamp::from_millis(millis).to_string();
        self.billing.job(job, &instant(start), self.billing.job_started(None)).await;
        self.billing.job(job, &instant(end), self.billing.job_succeeded()).await;
    }
}

/// A job runs all month. It costs 8,640 EUR a day, and ten times as much after the first ten days.
#[tokio::test]
async fn forecast_alert_uses_upcoming_prices() {
    let rounds = BudgetRounds::start().await;
    let billing = &rounds.billing;
    let (month, period) = rounds.month().await;
    let day = |number: i64| period.start().as_millis() + number * DAY;
    let plan_id = billing.assign_plan(&team_plan("0.1")).await;
    billing.post_admin(&format!("plans/{plan_id}/versions"), &team_plan("1")).await.is(200);
    let later = Timestamp::from_millis(day(10)).to_string();
    billing.post_account("plan", &json!({ "plan": plan_id, "plan_version": 2, "from": later })).await.is(200);
    billing.job(id(11), &period.start().to_string(), billing.job_started(None)).await;
    billing.wait_until_applied(0, 1).await;

    let days = i64::try_from(period.millis()).unwrap() / DAY;
    let cost_by_month_end = 10 * 8_640 + (days - 10) * 86_400;
    rounds
        .set_budget(
            json!({ "amount": cost_by_month_end.to_string(), "thresholds": [1, 40, 100, 101], "hard_stop": false }),
        )
        .await;
    // By the fifth day 43,200 EUR are used. That is below 40 % of the budget, and so is a forecast at the old price:
    // only the forecast at the upcoming price reaches 40 and 100 %.
    rounds.run_round_at(day(5)).await;
    rounds.run_round_at(day(5)).await;
    assert_eq!(
        rounds.alerts().await,
        [
            format!("{month} actual 1"),
            format!("{month} forecast 1"),
            format!("{month} forecast 40"),
            format!("{month} forecast 100")
        ]
    );
    // On the fifteenth day the forecast for the end of the month is the same.
    rounds.run_round_at(day(15)).await;
    assert!(!rounds.alerts().await.contains(&format!("{month} forecast 101")));
    rounds.billing.service.close().await;
}

#[tokio::test]
async fn late_usage_raises_alerts_until_the_look_back_ends() {
    let rounds = BudgetRounds::start().await;
    let (month, period) = rounds.month().await;
    let (start, end) = (period.start().as_millis(), period.end().as_millis());
    rounds.billing.assign_plan(&team_plan("0.01")).await;
    rounds.set_budget(json!({ "amount": "36", "thresholds": [50], "hard_stop": true })).await;
    rounds.run_round_at(end - HOUR).await;
    assert_eq!(rounds.alerts().await, [""; 0]);

    rounds.run_job(id(11), start, start + HOUR).await;
    rounds.billing.wait_until_applied(0, 2).await;
    rounds.run_round_at(end + LOOK_BACK).await;
    assert_eq!(rounds.alerts().await, [""; 0], "the look-back has ended");
    rounds.run_round_at(end + LOOK_BACK - 1).await;
    rounds.run_round_at(end).await;
    assert_eq!(rounds.alerts().await, [format!("{month} actual 50"), format!("{month} actual 100")]);
    let account = rounds.ledger.account(rounds.billing.organization).await.unwrap();
    assert!(account.jobs_allowed(month.next().unwrap()), "a budget of a past month blocks no jobs");

    // A budget raises no alert for a month that had ended when the budget was set.
    let smaller = AccountCommand::SetBudget {
        amount: Some(1.into()),
        thresholds: vec![50],
        hard_stop: false,
        now: Timestamp::from_millis(end),
    };
    let context = CommandContext::new().for_tenant(rounds.billing.organization);
    rounds.ledger.accounts.execute(rounds.billing.organization, &smaller, &context).await.unwrap();
    rounds.run_round_at(end + HOUR).await;
    assert_eq!(rounds.alerts().await, [""; 0]);
    rounds.billing.service.close().await;
}

#[tokio::test]
async fn daily_totals_include_late_events() {
    let rounds = BudgetRounds::start().await;
    let billing = &rounds.billing;
    let second = at("2025-10-02T00:00:00Z").as_millis();
    let hour = |hours: i64| Timestamp::from_millis(second + hours * HOUR).to_string();
    billing.file(id(1), &hour(0), billing.part(0, 1_000_000_000)).await;
    billing.file(id(2), &hour(6), billing.part(0, 500)).await;
    rounds.run_job(id(11), second + 8 * HOUR, second + 9 * HOUR).await;
    billing.wait_until_applied(2, 2).await;
    let totals = |through: i64, stored: i64, byte_hours: i64, run_ms: i64| {
        json!({
            "through": hour(through), "stored_bytes": stored, "byte_ms": (byte_hours * HOUR).to_string(),
            "run_ms": run_ms.to_string(),
        })
    };
    rounds.run_round_at(second + 24 * HOUR + 30).await;
    let first = totals(24, 1_000_000_500, 24_000_000_000 + 500 * 18, HOUR);
    assert_eq!(rounds.daily_totals().await, first);

    // Late events of the first day.
    billing.file(id(3), &hour(12), billing.part(0, 10)).await;
    rounds.run_job(id(12), second + 10 * HOUR, second + 11 * HOUR).await;
    billing.file(id(1), &hour(36), billing.deleted(1_000_000_000)).await;
    // One file is stored exactly at the end of the day, and one a millisecond later.
    billing.file(id(4), &hour(48), billing.part(0, 7)).await;
    let after = Timestamp::from_millis(second + 48 * HOUR + 1).to_string();
    billing.file(id(5), &after, billing.part(0, 3)).await;
    billing.wait_until_applied(6, 4).await;
    rounds.run_round_at(second + 47 * HOUR).await;
    assert_eq!(rounds.daily_totals().await, first, "totals are recorded once a day");
    rounds.run_round_at(second + 48 * HOUR + 1).await;
    let both = totals(48, 517, 36_000_000_000 + 500 * 42 + 10 * 36, 2 * HOUR);
    assert_eq!(rounds.daily_totals().await, both);
    rounds.billing.service.close().await;
}

#[tokio::test]
async fn overflowing_level_is_not_recorded_but_budget_is_checked() {
    let rounds = BudgetRounds::start().await;
    let billing = &rounds.billing;
    let (month, period) = rounds.month().await;
    rounds.billing.assign_plan(&team_plan("0.01")).await;
    rounds.set_budget(json!({ "amount": "1", "thresholds": [100], "hard_stop": true })).await;
    for file in [id(1), id(2)] {
        let part = FilePartUploaded { bytes: i64::MAX, ..billing.part(0, 1) };
        billing.file(file, &period.start().to_string(), part).await;
    }
    billing.wait_until_applied(2, 0).await;
    rounds.run_round_at(period.start().as_millis() + DAY).await;
    assert_eq!(rounds.daily_totals().await, Value::Null);
    assert!(rounds.alerts().await.contains(&format!("{month} actual 100")));
    // A level within the range of the event is recorded again.
    let deleted = Timestamp::from_millis(period.start().as_millis() + HOUR).to_string();
    billing.file(id(2), &deleted, billing.deleted(i64::MAX)).await;
    billing.wait_until_applied(3, 0).await;
    rounds.run_round_at(period.start().as_millis() + DAY).await;
    assert_eq!(rounds.daily_totals().await["stored_bytes"], i64::MAX);
    rounds.billing.service.close().await;
}

#[tokio::test]
async fn exhausted_budget_blocks_new_jobs_with_hard_stop() {
    let billing = october_customer().await;
    let admin = Caller::key(Uuid::now_v7(), billing.organization, Role::Admin);
    let set = |body: Value| billing.service.request(Method::PUT, billing.path("budget", "")).by(&admin).json(&body);
    let viewer = billing.service.request(Method::PUT, billing.path("budget", "")).by(&billing.viewer);
    viewer.json(&json!({ "amount": "1" })).send().await.problem(403);
    set(json!({ "amount": "0.001" })).send().await.problem(422);
    set(json!({ "amount": "0.50", "thresholds": [50], "hard_stop": true })).send().await.is(200);
    let standing_path = format!("/internal/v1/billing/organizations/{}/standing", billing.organization);
    billing.service.get(&standing_path).by(&billing.viewer).send().await.problem(403);
    let allowed = async || {
        let job = Caller::service("job");
        billing.service.get(&standing_path).by(&job).send().await.expect(200).json()["jobs_allowed"].clone()
    };
    assert_eq!(allowed().await, true);

    // After 10,000 seconds of the current month a running job has cost more than the budget, at the standard prices.
    let ledger = invoice_ledger(&billing.service.pool, default_prices(), Timestamp::now);
    let account = ledger.account(billing.organization).await.unwrap();
    let start = ledger.period(&account, ledger.current_month(&account).unwrap()).unwrap().0.start();
    let long_ago = start.as_millis() - 86_400_000 * 30;
    billing.job(id(12), &Timestamp::from_millis(long_ago).to_string(), billing.job_started(None)).await;
    billing.wait_until_applied(2, 3).await;
    let now = Timestamp::from_millis(start.as_millis() + 10_000_000);
    let ledger = invoice_ledger(&billing.service.pool, default_prices(), move || now);
    let listed = async || {
        let count = "select count(*) from billing_accounts where has_budget";
        let count: i64 = sqlx::query_scalar(count).fetch_one(&billing.service.pool).await.unwrap();
        (count == 1).then_some(())
    };
    billing.service.eventually(listed).await;
    round(&ledger).await.unwrap();
    round(&ledger).await.unwrap();
    let budget = billing.get_json("budget", "").await;
    let mut alerts: Vec<_> = budget["alerts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|alert| format!("{} {}", alert["kind"], alert["threshold"]))
        .collect();
    alerts.sort_unstable();
    assert_eq!(alerts, ["\"actual\" 100", "\"actual\" 50", "\"forecast\" 100", "\"forecast\" 50"]);
    assert_eq!(allowed().await, false);
    let metered = billing.get_json("account", "").await["metered"].clone();
    assert!(metered["run_ms"].as_str().unwrap().parse::<i128>().unwrap() > 3_600_000, "{metered}");
    billing.service.close().await;
}

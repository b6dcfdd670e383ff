//! What is said of budgets, and the totals of each day, with a clock that the test moves.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use axum::http::Method;
use billing::{
    background::budgets::{LOOK_BACK, round},
    invoicing::ledger::Ledger,
    settings,
};
use contracts::file::FilePartUploaded;
use epoch::{CommandContext, FastPath, Timestamp};
use epoch_postgres::PgStore;
use http_kit::{Caller, Role};
use rating::{
    account::AccountCommand,
    calendar::{month::Month, span::Span},
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    accounts::plan,
    support::{Billing, at, id},
};

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

/// An organization with an account, and a round of budgets that comes when the test says so.
struct Watched {
    billing: Billing,
    ledger: Ledger,
    clock: Arc<AtomicI64>,
}

impl Watched {
    async fn start() -> Self {
        let billing = Billing::start().await;
        billing.account_opens().await;
        let listed = async || {
            let count = "select count(*) from billing_accounts";
            let count: i64 = sqlx::query_scalar(count).fetch_one(&billing.service.pool).await.unwrap();
            (count == 1).then_some(())
        };
        billing.service.eventually(listed).await;
        let (store, appender) = PgStore::new(billing.service.pool.clone(), FastPath::new());
        tokio::spawn(appender.run());
        let clock = Arc::new(AtomicI64::new(Timestamp::now().as_millis()));
        let now = Arc::clone(&clock);
        let now = Arc::new(move || Timestamp::from_millis(now.load(Ordering::SeqCst)));
        let ledger = Ledger::new(store, settings::prices(|_| None).unwrap().plan(), now);
        Self { billing, ledger, clock }
    }

    /// The month that the clock is in.
    async fn month(&self) -> (Month, Span) {
        let account = self.ledger.account(self.billing.organization).await.unwrap();
        let month = self.ledger.current_month(&account).unwrap();
        (month, self.ledger.period(&account, month).unwrap().0)
    }

    async fn budget(&self, budget: Value) {
        let admin = Caller::key(Uuid::now_v7(), self.billing.organization, Role::Admin);
        let set = self.billing.service.request(Method::PUT, self.billing.path("budget", "")).by(&admin).json(&budget);
        set.send().await.is(200);
    }

    async fn round_at(&self, millis: i64) {
        self.clock.store(millis, Ordering::SeqCst);
        round(&self.ledger).await.unwrap();
    }

    /// What was said: month, kind and threshold.
    async fn said(&self) -> Vec<String> {
        let budget = self.billing.ask("budget", "").await;
        let alerts = budget["alerts"].as_array().unwrap().iter();
        let text = |alert: &Value, name: &str| alert[name].as_str().unwrap().to_owned();
        alerts.map(|alert| format!("{} {} {}", text(alert, "month"), text(alert, "kind"), alert["threshold"])).collect()
    }

    async fn metered(&self) -> Value {
        self.billing.ask("account", "").await["metered"].clone()
    }

    async fn ran(&self, job: Uuid, start: i64, end: i64) {
        let instant = |millis| Timestamp::from_millis(millis).to_string();
        self.billing.job(job, &instant(start), self.billing.job_started(None)).await;
        self.billing.job(job, &instant(end), self.billing.job_succeeded()).await;
    }
}

/// A job runs all the time: 8,640 a day, from the tenth day on ten times as much.
#[tokio::test]
async fn a_forecast_is_said_before_it_comes_true_at_the_prices_to_come() {
    let watched = Watched::start().await;
    let billing = &watched.billing;
    let (month, period) = watched.month().await;
    let day = |number: i64| period.start().as_millis() + number * DAY;
    let plan_id = billing.assigned(&plan("0.1")).await;
    billing.admin(&format!("plans/{plan_id}/versions"), &plan("1")).await.is(200);
    let later = Timestamp::from_millis(day(10)).to_string();
    billing.account("plan", &json!({ "plan": plan_id, "plan_version": 2, "from": later })).await.is(200);
    billing.job(id(11), &period.start().to_string(), billing.job_started(None)).await;
    billing.caught_up(0, 1).await;

    let days = i64::try_from(period.millis()).unwrap() / DAY;
    let by_the_end = 10 * 8_640 + (days - 10) * 86_400;
    watched
        .budget(json!({ "amount": by_the_end.to_string(), "thresholds": [1, 40, 100, 101], "hard_stop": false }))
        .await;
    // On the fifth day 43,200 were used: not forty hundredths of the budget, nor of what is to come at the old price.
    watched.round_at(day(5)).await;
    watched.round_at(day(5)).await;
    assert_eq!(
        watched.said().await,
        [
            format!("{month} actual 1"),
            format!("{month} forecast 1"),
            format!("{month} forecast 40"),
            format!("{month} forecast 100")
        ]
    );
    // On the fifteenth it is the same by the end.
    watched.round_at(day(15)).await;
    assert!(!watched.said().await.contains(&format!("{month} forecast 101")));
    watched.billing.service.close().await;
}

#[tokio::test]
async fn what_is_heard_after_a_month_has_ended_is_said_for_a_while() {
    let watched = Watched::start().await;
    let (month, period) = watched.month().await;
    let (start, end) = (period.start().as_millis(), period.end().as_millis());
    watched.billing.assigned(&plan("0.01")).await;
    watched.budget(json!({ "amount": "36", "thresholds": [50], "hard_stop": true })).await;
    watched.round_at(end - HOUR).await;
    assert_eq!(watched.said().await, [""; 0]);

    watched.ran(id(11), start, start + HOUR).await;
    watched.billing.caught_up(0, 2).await;
    watched.round_at(end + LOOK_BACK).await;
    assert_eq!(watched.said().await, [""; 0], "it is over for too long");
    watched.round_at(end + LOOK_BACK - 1).await;
    watched.round_at(end).await;
    assert_eq!(watched.said().await, [format!("{month} actual 50"), format!("{month} actual 100")]);
    let account = watched.ledger.account(watched.billing.organization).await.unwrap();
    assert!(account.jobs_allowed(month.next().unwrap()), "a month that is over stops nothing");

    // A budget says nothing of a month that was over when it was set.
    let smaller = AccountCommand::SetBudget {
        amount: Some(1.into()),
        thresholds: vec![50],
        hard_stop: false,
        now: Timestamp::from_millis(end),
    };
    let context = CommandContext::new().for_tenant(watched.billing.organization);
    watched.ledger.accounts.execute(watched.billing.organization, &smaller, &context).await.unwrap();
    watched.round_at(end + HOUR).await;
    assert_eq!(watched.said().await, [""; 0]);
    watched.billing.service.close().await;
}

#[tokio::test]
async fn totals_of_a_day_have_what_came_late() {
    let watched = Watched::start().await;
    let billing = &watched.billing;
    let second = at("2025-10-02T00:00:00Z").as_millis();
    let hour = |hours: i64| Timestamp::from_millis(second + hours * HOUR).to_string();
    billing.file(id(1), &hour(0), billing.part(0, 1_000_000_000)).await;
    billing.file(id(2), &hour(6), billing.part(0, 500)).await;
    watched.ran(id(11), second + 8 * HOUR, second + 9 * HOUR).await;
    billing.caught_up(2, 2).await;
    let totals = |through: i64, stored: i64, byte_hours: i64, run_ms: i64| {
        json!({
            "through": hour(through), "stored_bytes": stored, "byte_ms": (byte_hours * HOUR).to_string(),
            "run_ms": run_ms.to_string(),
        })
    };
    watched.round_at(second + 24 * HOUR + 30).await;
    let first = totals(24, 1_000_000_500, 24_000_000_000 + 500 * 18, HOUR);
    assert_eq!(watched.metered().await, first);

    // Of the day before.
    billing.file(id(3), &hour(12), billing.part(0, 10)).await;
    watched.ran(id(12), second + 10 * HOUR, second + 11 * HOUR).await;
    billing.file(id(1), &hour(36), billing.deleted(1_000_000_000)).await;
    // Something begins when the day ends, and something a millisecond later.
    billing.file(id(4), &hour(48), billing.part(0, 7)).await;
    let after = Timestamp::from_millis(second + 48 * HOUR + 1).to_string();
    billing.file(id(5), &after, billing.part(0, 3)).await;
    billing.caught_up(6, 4).await;
    watched.round_at(second + 47 * HOUR).await;
    assert_eq!(watched.metered().await, first, "once a day");
    watched.round_at(second + 48 * HOUR + 1).await;
    let both = totals(48, 517, 36_000_000_000 + 500 * 42 + 10 * 36, 2 * HOUR);
    assert_eq!(watched.metered().await, both);
    watched.billing.service.close().await;
}

#[tokio::test]
async fn a_level_that_no_event_can_tell_is_not_told_and_the_budget_is_looked_at() {
    let watched = Watched::start().await;
    let billing = &watched.billing;
    let (month, period) = watched.month().await;
    watched.billing.assigned(&plan("0.01")).await;
    watched.budget(json!({ "amount": "1", "thresholds": [100], "hard_stop": true })).await;
    for file in [id(1), id(2)] {
        let part = FilePartUploaded { bytes: i64::MAX, ..billing.part(0, 1) };
        billing.file(file, &period.start().to_string(), part).await;
    }
    billing.caught_up(2, 0).await;
    watched.round_at(period.start().as_millis() + DAY).await;
    assert_eq!(watched.metered().await, Value::Null);
    assert!(watched.said().await.contains(&format!("{month} actual 100")));
    // When it can be told again, it is.
    let deleted = Timestamp::from_millis(period.start().as_millis() + HOUR).to_string();
    billing.file(id(2), &deleted, billing.deleted(i64::MAX)).await;
    billing.caught_up(3, 0).await;
    watched.round_at(period.start().as_millis() + DAY).await;
    assert_eq!(watched.metered().await["stored_bytes"], i64::MAX);
    watched.billing.service.close().await;
}

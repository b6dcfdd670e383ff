//! Two years of a customer, month by month, with a clock that the test moves.
//!
//! The customer runs a job of one hour now and then, and stores a file of 10 GB from the beginning until the second year.
//! Prices are round so that amounts can be checked by hand. The first plan charges 3.60 EUR for an hour of a job and 1 cent
//! per GB-hour. The second version of the plan costs twice as much.

use std::sync::Arc;

use billing::invoicing::{error::LedgerError, ledger::Ledger};
use contracts::organization::OrganizationCreated;
use epoch::CommandContext;
use rating::{
    account::{Account, AccountCommand, Pin},
    calendar::month::Month,
    invoice::InvoiceState,
    pricing::{
        plan_aggregate::{PlanCommand, PlanDefinition},
        standard_plan::FlatPrices,
    },
    sharing::rule::SharingRule,
};
use uuid::Uuid;

use crate::support::{Billing, HOUR, TestClock, at, id, invoice_ledger};

/// A customer, a ledger, and a clock.
struct Customer {
    billing: Billing,
    ledger: Ledger,
    clock: TestClock,
    /// Events of files published so far.
    files: i64,
    /// Events of jobs published so far.
    jobs: i64,
}

impl Customer {
    async fn start() -> Self {
        let billing = Billing::start().await;
        let clock = TestClock::starting_at(0);
        let prices = FlatPrices {
            currency: "EUR".parse().unwrap(),
            gb_hour: "0.01".parse().unwrap(),
            second: "0.0001".parse().unwrap(),
        };
        let ledger = invoice_ledger(&billing.service.pool, prices.plan(), clock.reader());
        Self { billing, ledger, clock, files: 0, jobs: 0 }
    }

    fn organization(&self) -> Uuid {
        self.billing.organization
    }

    fn set_clock(&self, when: &str) {
        self.clock.set(at(when).as_millis());
    }

    async fn account(&self) -> Arc<Account> {
        self.ledger.account(self.organization()).await.unwrap()
    }

    async fn execute(&self, command: AccountCommand) {
        let context = CommandContext::at(self.ledger.now()).for_tenant(self.organization());
        self.ledger.accounts.execute(self.organization(), &command, &context).await.unwrap();
    }

    async fn store_file(&mut self, file: Uuid, when: &str, bytes: i64) {
        self.billing.file(file, when, self.billing.part(0, bytes)).await;
        self.files += 1;
    }

    async fn delete_file(&mut self, file: Uuid, when: &str, bytes: i64) {
        self.billing.file(file, when, self.billing.deleted(bytes)).await;
        self.files += 1;
    }

    async fn run_job(&mut self, job: Uuid, from: &str, to: &str) {
        self.billing.job(job, from, self.billing.job_started(None)).await;
        self.billing.job(job, to, self.billing.job_succeeded()).await;
        self.jobs += 2;
    }

    async fn wait_until_applied(&self) {
        self.billing.wait_until_applied(self.files, self.jobs).await;
    }

    /// Returns the lines and the total of the draft.
    async fn draft(&self, month: &str) -> (Vec<String>, String) {
        let (_, draft) = self.ledger.draft(self.organization(), month.parse().unwrap()).await.unwrap();
        let line = |line: &contracts::invoice::Line| {
            format!("{} v{} {} {}", line.meter, line.plan_version, line.quantity, line.amount)
        };
        (draft.lines.iter().map(line).collect(), draft.total)
    }

    async fn finalize(&self, month: &str) -> Result<Arc<InvoiceState>, LedgerError> {
        let month: Month = month.parse().unwrap();
        let context = CommandContext::at(self.ledger.now()).by("operator");
        self.ledger.finalize(self.organization(), month, &context).await?;
        Ok(self.ledger.invoice_of(self.organization(), month).await?.1)
    }

    /// Returns the number of hours of a month in the time zone of the account.
    async fn hours(&self, month: &str) -> i128 {
        let account = self.account().await;
        let (period, _) = self.ledger.period(&account, month.parse().unwrap()).unwrap();
        period.millis() / i128::from(HOUR)
    }
}

fn plan(compute: &str, storage: &str) -> PlanCommand {
    let charges = format!(
        r#"[{{"meter":"compute","unit":"s","model":"flat","unit_price":"{compute}"}},
            {{"meter":"storage","unit":"GB.h","model":"flat","unit_price":"{storage}"}}]"#
    );
    PlanCommand::Publish(PlanDefinition {
        name: "Team".into(),
        currency: "EUR".into(),
        split: SharingRule::Split,
        charges: serde_json::from_str(&charges).unwrap(),
        minimum: None,
        tax_percent: None,
    })
}

const GB: i64 = 1_000_000_000;

#[tokio::test]
async fn customer_is_billed_correctly_over_two_years() {
    let mut customer = Customer::start().await;
    let (archive, report) = (id(1), id(2));

    // January 2025: creating the organization opens an account in UTC.
    customer.set_clock("2025-01-01T00:00:00Z");
    let organization = customer.organization();
    let created: contracts::organization::OrganizationEvent = OrganizationCreated { name: "Acme".into() }.into();
    customer
        .billing
        .service
        .publish("organization", organization, organization, customer.ledger.now(), &[created])
        .await;
    let opened = async || customer.ledger.account(organization).await.ok();
    let account = customer.billing.service.eventually(opened).await;
    assert_eq!(account.time_zone("2025-01".parse().unwrap()), "UTC");

    // The account gets version 1 of the plan Team: 3.60 EUR for 3,600 seconds of a job, and 1 cent per GB-hour.
    let team = Uuid::now_v7();
    let context = CommandContext::new();
    customer.ledger.plans.create(team, &plan("0.001", "0.01"), &context).await.unwrap();
    let euro = "EUR".parse().unwrap();
    let first = Pin { plan: team, version: 1 };
    let now = customer.ledger.now();
    let assign = AccountCommand::AssignPlan { pin: first, currency: euro, from: now, now, notice: None };
    customer.execute(assign).await;

    // The customer stores an archive of 10 GB, and runs a report job for an hour.
    customer.store_file(archive, "2025-01-01T00:00:00Z", 10 * GB).await;
    customer.run_job(report, "2025-01-01T08:00:00Z", "2025-01-01T09:00:00Z").await;
    customer.wait_until_applied().await;

    // In the middle of January, half of the storage cost has accrued, and the month cannot be finalized yet.
    customer.set_clock("2025-01-16T12:00:00Z");
    let half = (vec!["compute v1 3600 3.60".to_owned(), "storage v1 3720 37.20".to_owned()], "40.80".to_owned());
    assert_eq!(customer.draft("2025-01").await, half);
    assert!(matches!(customer.finalize("2025-01").await, Err(LedgerError::NotOver { .. })));

    // February: January is finalized. 31 days of 24 hours with 10 GB are 7,440 GB-hours.
    customer.set_clock("2025-02-01T00:00:00Z");
    let january = customer.finalize("2025-01").await.unwrap();
    let finalized = january.finalized().unwrap();
    assert_eq!((finalized.number, finalized.total.as_str(), finalized.days.len()), (1, "78.00", 31));

    // The customer moves to Madrid: March is the first month there, so February ends an hour early.
    let madrid = AccountCommand::ChangeTimeZone {
        time_zone: "Europe/Madrid".into(),
        from: "2025-03".parse().unwrap(),
        current: "2025-02".parse().unwrap(),
    };
    customer.execute(madrid).await;
    assert_eq!(customer.hours("2025-02").await, 28 * 24 - 1);

    // March has a day of 23 hours and October one of 25 hours. Days still sum to the month.
    assert_eq!((customer.hours("2025-03").await, customer.hours("2025-10").await), (31 * 24 - 1, 31 * 24 + 1));
    customer.set_clock("2025-04-01T12:00:00Z");
    for (month, number, total) in [("2025-02", 2, "67.10"), ("2025-03", 3, "74.30")] {
        let invoice = customer.finalize(month).await.unwrap();
        let finalized = invoice.finalized().unwrap();
        assert_eq!((finalized.number, finalized.total.as_str()), (number, total), "{month}");
        let days: i128 = finalized.days.iter().map(|day| day.byte_milliseconds.parse::<i128>().unwrap()).sum();
        assert_eq!(days.to_string(), finalized.lines[0].metered, "days sum to the month");
    }
    let short = |day: &&contracts::invoice::Day| day.date == "2025-03-30";
    let march = customer.ledger.invoice_of(organization, "2025-03".parse().unwrap()).await.unwrap().1;
    let day = march.finalized().unwrap().days.iter().find(short).unwrap().clone();
    assert_eq!(day.end_at.as_millis() - day.start_at.as_millis(), 23 * 3_600_000);

    // A new version of Team costs twice as much. The account stays on version 1.
    customer.ledger.plans.execute(team, &plan("0.002", "0.02"), &CommandContext::new()).await.unwrap();
    customer.set_clock("2025-11-01T12:00:00Z");
    assert_eq!(customer.draft("2025-10").await.0, ["storage v1 7450 74.50"]);
    let october = customer.finalize("2025-10").await.unwrap();
    assert_eq!(october.finalized().unwrap().total, "74.50");
    let long = october.finalized().unwrap().days.iter().find(|day| day.date == "2025-10-26").unwrap().clone();
    assert_eq!(long.end_at.as_millis() - long.start_at.as_millis(), 25 * 3_600_000);
    assert_eq!(long.byte_milliseconds, (25 * 3_600_000 * i128::from(10 * GB)).to_string());

    // With notice, version 2 applies from the middle of May 2026, when Madrid is two hours ahead of UTC.
    customer.set_clock("2026-04-20T00:00:00Z");
    let second = Pin { plan: team, version: 2 };
    let migrate = AccountCommand::AssignPlan {
        pin: second,
        currency: euro,
        from: at("2026-05-15T22:00:00Z"),
        now: customer.ledger.now(),
        notice: Some("from May 16 on, version 2 of Team applies".into()),
    };
    customer.execute(migrate).await;
    customer.run_job(id(3), "2026-05-15T21:30:00Z", "2026-05-15T22:30:00Z").await;
    customer.wait_until_applied().await;
    customer.set_clock("2026-06-01T12:00:00Z");
    let may = customer.finalize("2026-05").await.unwrap();
    let lines = may
        .finalized()
        .unwrap()
        .lines
        .iter()
        .map(|line| format!("{} v{} {} {}", line.meter, line.plan_version, line.quantity, line.amount));
    assert_eq!(
        lines.collect::<Vec<_>>(),
        ["compute v1 1800 1.80", "compute v2 1800 3.60", "storage v1 3600 36.00", "storage v2 3840 76.80",]
    );
    assert_eq!((may.finalized().unwrap().number, may.finalized().unwrap().total.as_str()), (5, "118.20"));

    // December 2026: a late event reports that the archive was deleted at noon UTC on May 20. The May invoice stays
    // unchanged. The next invoice refunds the 274 hours from then to the end of May in a correction that names May.
    customer.delete_file(archive, "2026-05-20T12:00:00Z", 10 * GB).await;
    customer.wait_until_applied().await;
    customer.set_clock("2026-12-01T12:00:00Z");
    let november = customer.finalize("2026-11").await.unwrap();
    let may = customer.ledger.invoice_of(organization, "2026-05".parse().unwrap()).await.unwrap().1;
    assert_eq!(may.finalized().unwrap().total, "118.20", "a finalized invoice stays unchanged");
    let booked: Vec<_> = may
        .adjustments()
        .iter()
        .map(|booked| (booked.meter.as_str(), booked.plan_version, booked.amount.as_str()))
        .collect();
    assert_eq!(booked, [("storage", 2, "-54.80")]);
    let settled = november.finalized().unwrap();
    let correction = &settled.corrections[0];
    assert_eq!(
        (correction.month.as_str(), correction.meter.as_str(), correction.amount.as_str()),
        ("2026-05", "storage", "-54.80")
    );
    assert_eq!((settled.number, settled.lines.len(), settled.total.as_str()), (6, 0, "-54.80"));

    // A settled correction is not settled again.
    customer.set_clock("2027-01-01T12:00:00Z");
    let december = customer.finalize("2026-12").await.unwrap();
    assert_eq!(
        (december.finalized().unwrap().corrections.len(), december.finalized().unwrap().total.as_str()),
        (0, "0.00")
    );
    customer.billing.service.close().await;
}

//! Two years of a customer, told month by month, with a clock that the test moves.
//!
//! The customer runs one job of an hour on the first of each month, and stores a file of 10 GB from the beginning until late in
//! the second year. Prices are such that hours can be counted on the fingers: an hour of a job costs 1 euro, a gigabyte-hour
//! costs a cent, and the new plan costs twice as much.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use billing::invoicing::{error::LedgerError, ledger::Ledger};
use contracts::organization::OrganizationCreated;
use epoch::{CommandContext, Timestamp, local::LocalBus};
use epoch_postgres::PgStore;
use rating::{
    account::{Account, AccountCommand, Pin},
    calendar::month::Month,
    invoice::InvoiceState,
    pricing::{
        plan_aggregate::{PlanCommand, PlanDefinition},
        standard_plan::FlatPrices,
    },
    sharing::rule::Rule,
};
use uuid::Uuid;

use crate::support::{Billing, at, id};

/// A customer, a ledger, and a clock.
struct Customer {
    billing: Billing,
    ledger: Ledger,
    clock: Arc<AtomicI64>,
    files: i64,
    jobs: i64,
}

impl Customer {
    async fn start() -> Self {
        let billing = Billing::start().await;
        let (store, appender) = PgStore::new(billing.service.pool.clone(), LocalBus::new());
        tokio::spawn(appender.run());
        let clock = Arc::new(AtomicI64::new(0));
        let hands = Arc::clone(&clock);
        let now = Arc::new(move || Timestamp::from_millis(hands.load(Ordering::SeqCst)));
        let prices = FlatPrices {
            currency: "EUR".parse().unwrap(),
            gb_hour: "0.01".parse().unwrap(),
            second: "0.0001".parse().unwrap(),
        };
        let ledger = Ledger::new(store, prices.plan(), now);
        Self { billing, ledger, clock, files: 0, jobs: 0 }
    }

    fn organization(&self) -> Uuid {
        self.billing.organization
    }

    fn it_is(&self, when: &str) {
        self.clock.store(at(when).as_millis(), Ordering::SeqCst);
    }

    async fn account(&self) -> Arc<Account> {
        self.ledger.account(self.organization()).await.unwrap()
    }

    async fn tell(&self, command: AccountCommand) {
        let context = CommandContext::at(self.ledger.now()).for_tenant(self.organization());
        self.ledger.accounts.execute(self.organization(), &command, &context).await.unwrap();
    }

    async fn stores(&mut self, file: Uuid, when: &str, bytes: i64) {
        self.billing.file(file, when, self.billing.part(0, bytes)).await;
        self.files += 1;
    }

    async fn deletes(&mut self, file: Uuid, when: &str, bytes: i64) {
        self.billing.file(file, when, self.billing.deleted(bytes)).await;
        self.files += 1;
    }

    async fn runs(&mut self, job: Uuid, from: &str, to: &str) {
        self.billing.job(job, from, self.billing.job_started(None)).await;
        self.billing.job(job, to, self.billing.job_succeeded()).await;
        self.jobs += 2;
    }

    async fn everything_is_heard(&self) {
        self.billing.caught_up(self.files, self.jobs).await;
    }

    /// The draft's lines and total.
    async fn owes(&self, month: &str) -> (Vec<String>, String) {
        let (statement, draft) = self.ledger.draft(self.organization(), month.parse().unwrap()).await.unwrap();
        let line = |line: &contracts::invoice::Line| {
            format!("{} v{} {} {}", line.meter, line.plan_version, line.quantity, line.amount)
        };
        let _ = statement;
        (draft.lines.iter().map(line).collect(), draft.total)
    }

    async fn finalize(&self, month: &str) -> Result<Arc<InvoiceState>, LedgerError> {
        let month: Month = month.parse().unwrap();
        let context = CommandContext::at(self.ledger.now()).by("operator");
        self.ledger.finalize(self.organization(), month, &context).await?;
        Ok(self.ledger.invoice_of(self.organization(), month).await?.1)
    }

    /// How many hours a month has by the account's calendar.
    async fn hours(&self, month: &str) -> i128 {
        let account = self.account().await;
        let (period, _) = self.ledger.period(&account, month.parse().unwrap()).unwrap();
        period.millis() / 3_600_000
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
        split: Rule::Split,
        charges: serde_json::from_str(&charges).unwrap(),
        minimum: None,
        tax_percent: None,
    })
}

const GB: i64 = 1_000_000_000;

#[tokio::test]
async fn two_years_of_a_customer() {
    let mut customer = Customer::start().await;
    let (archive, report) = (id(1), id(2));

    // January 2025: an organization is created, and has an account in UTC by itself.
    customer.it_is("2025-01-01T00:00:00Z");
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

    // It gets the plan Team, version 1: 3.6 euros for 3,600 seconds of a job, and a cent for a gigabyte-hour.
    let team = Uuid::now_v7();
    let context = CommandContext::new();
    customer.ledger.plans.create(team, &plan("0.001", "0.01"), &context).await.unwrap();
    let euro = "EUR".parse().unwrap();
    let first = Pin { plan: team, version: 1 };
    let now = customer.ledger.now();
    let assign = AccountCommand::AssignPlan { pin: first, currency: euro, from: now, now, notice: None };
    customer.tell(assign).await;

    // It stores an archive of 10 GB, and runs a report for an hour.
    customer.stores(archive, "2025-01-01T00:00:00Z", 10 * GB).await;
    customer.runs(report, "2025-01-01T08:00:00Z", "2025-01-01T09:00:00Z").await;
    customer.everything_is_heard().await;

    // In the middle of January half of it is due, and the month can't be finalized yet.
    customer.it_is("2025-01-16T12:00:00Z");
    let half = (vec!["compute v1 3600 3.60".to_owned(), "storage v1 3720 37.20".to_owned()], "40.80".to_owned());
    assert_eq!(customer.owes("2025-01").await, half);
    assert!(matches!(customer.finalize("2025-01").await, Err(LedgerError::NotOver { .. })));

    // February: January is frozen. 31 days of 24 hours make 7,440 gigabyte-hours.
    customer.it_is("2025-02-01T00:00:00Z");
    let january = customer.finalize("2025-01").await.unwrap();
    let frozen = january.finalized().unwrap();
    assert_eq!((frozen.number, frozen.total.as_str(), frozen.days.len()), (1, "78.00", 31));

    // The customer moves to Madrid: March is the first month there, so February ends an hour early.
    let madrid = AccountCommand::ChangeTimeZone {
        time_zone: "Europe/Madrid".into(),
        from: "2025-03".parse().unwrap(),
        current: "2025-02".parse().unwrap(),
    };
    customer.tell(madrid).await;
    assert_eq!(customer.hours("2025-02").await, 28 * 24 - 1);

    // March has the short day, October the long one; days and months still sum to the same.
    assert_eq!((customer.hours("2025-03").await, customer.hours("2025-10").await), (31 * 24 - 1, 31 * 24 + 1));
    customer.it_is("2025-04-01T12:00:00Z");
    for (month, number, total) in [("2025-02", 2, "67.10"), ("2025-03", 3, "74.30")] {
        let invoice = customer.finalize(month).await.unwrap();
        let frozen = invoice.finalized().unwrap();
        assert_eq!((frozen.number, frozen.total.as_str()), (number, total), "{month}");
        let days: i128 = frozen.days.iter().map(|day| day.byte_milliseconds.parse::<i128>().unwrap()).sum();
        assert_eq!(days.to_string(), frozen.lines[0].metered, "days sum to the month");
    }
    let short = |day: &&contracts::invoice::Day| day.date == "2025-03-30";
    let march = customer.ledger.invoice_of(organization, "2025-03".parse().unwrap()).await.unwrap().1;
    let day = march.finalized().unwrap().days.iter().find(short).unwrap().clone();
    assert_eq!(day.end_at.as_millis() - day.start_at.as_millis(), 23 * 3_600_000);

    // A new version of Team costs twice as much. The customer has version 1 and doesn't notice.
    customer.ledger.plans.execute(team, &plan("0.002", "0.02"), &CommandContext::new()).await.unwrap();
    customer.it_is("2025-11-01T12:00:00Z");
    assert_eq!(customer.owes("2025-10").await.0, ["storage v1 7450 74.50"]);
    let october = customer.finalize("2025-10").await.unwrap();
    assert_eq!(october.finalized().unwrap().total, "74.50");
    let long = october.finalized().unwrap().days.iter().find(|day| day.date == "2025-10-26").unwrap().clone();
    assert_eq!(long.end_at.as_millis() - long.start_at.as_millis(), 25 * 3_600_000);
    assert_eq!(long.byte_milliseconds, (25 * 3_600_000 * i128::from(10 * GB)).to_string());

    // With notice, the customer gets version 2 in the middle of May 2026. Madrid is two hours ahead of UTC then.
    customer.it_is("2026-04-20T00:00:00Z");
    let second = Pin { plan: team, version: 2 };
    let migrate = AccountCommand::AssignPlan {
        pin: second,
        currency: euro,
        from: at("2026-05-15T22:00:00Z"),
        now: customer.ledger.now(),
        notice: Some("from May 16 on, version 2 of Team applies".into()),
    };
    customer.tell(migrate).await;
    customer.runs(id(3), "2026-05-15T21:30:00Z", "2026-05-15T22:30:00Z").await;
    customer.everything_is_heard().await;
    customer.it_is("2026-06-01T12:00:00Z");
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

    // December 2026: only now it is heard that the archive was deleted at noon of May 20, UTC. May stays as it is;
    // the next invoice gives back the 274 hours from then to the end of May, and says what for.
    customer.deletes(archive, "2026-05-20T12:00:00Z", 10 * GB).await;
    customer.everything_is_heard().await;
    customer.it_is("2026-12-01T12:00:00Z");
    let november = customer.finalize("2026-11").await.unwrap();
    let may = customer.ledger.invoice_of(organization, "2026-05".parse().unwrap()).await.unwrap().1;
    assert_eq!(may.finalized().unwrap().total, "118.20", "frozen");
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

    // What was settled isn't settled again.
    customer.it_is("2027-01-01T12:00:00Z");
    let december = customer.finalize("2026-12").await.unwrap();
    assert_eq!(
        (december.finalized().unwrap().corrections.len(), december.finalized().unwrap().total.as_str()),
        (0, "0.00")
    );
    customer.billing.service.close().await;
}

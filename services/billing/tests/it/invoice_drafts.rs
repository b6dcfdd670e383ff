//! Drafts updated event by event equal the draft computed from all events at once.

use std::{collections::BTreeMap, sync::Arc};

use billing::invoicing::{
    ledger::Ledger,
    month_usage::{Cutoff, MonthUsage, Statement},
    open::Opening,
};
use contracts::{
    file::{self, FileDeleted, FileEvent},
    invoice::InvoiceFinalized,
    job::{self, JobEvent, JobSucceeded},
};
use epoch::{CommandContext, Envelope, Timestamp};
use proptest::{
    collection::vec,
    prelude::*,
    sample::select,
    strategy::ValueTree,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use rating::{
    account::{AccountCommand, Pin},
    calendar::{
        day::{days, zone},
        month::Month,
        span::Span,
    },
    metering::{
        level::{LevelChange, areas},
        pairing::{self, Moment, pair_moments},
        run::Run,
    },
    pricing::{
        meter::Meter,
        plan_aggregate::{PlanCommand, PlanDefinition},
    },
    rating::{
        term::{Term, terms_of},
        usage_amounts::UsageAmounts,
    },
    sharing::rule::SharingRule,
};
use uuid::Uuid;

use crate::{
    read_models::ReadModels,
    support::{DAY, HOUR, TestClock, default_prices, invoice_ledger, job_started, part_uploaded},
};

/// 2025-10-01T00:00:00 in Madrid, where summer time ends in that month.
const OCTOBER: i64 = 1_759_269_600_000;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// An event of one of three files or one of three jobs.
#[derive(Debug, Clone, Copy)]
struct Step {
    subject: usize,
    when: i64,
    kind: Kind,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Stored(i64),
    Freed(i64),
    Started,
    Ended,
}

fn step() -> impl Strategy<Value = Step> {
    let when = prop_oneof![
        OCTOBER - 20 * DAY..OCTOBER + 35 * DAY,
        (-30..900_i64).prop_map(|hours| OCTOBER + hours * HOUR),
        OCTOBER + 14 * DAY..OCTOBER + 16 * DAY,
    ];
    let bytes = 1..2_000_000_000_000_i64;
    let kind = prop_oneof![
        bytes.clone().prop_map(Kind::Stored),
        bytes.prop_map(Kind::Freed),
        Just(Kind::Started),
        Just(Kind::Ended),
    ];
    (0..3_usize, when, kind).prop_map(|(subject, when, kind)| Step { subject, when, kind })
}

/// The same steps as input of the pure functions of `rating`.
#[derive(Default)]
struct Reference {
    levels: Vec<LevelChange>,
    jobs: BTreeMap<usize, Vec<Step>>,
}

impl Moment for Step {
    fn kind(&self) -> pairing::MomentKind {
        if matches!(self.kind, Kind::Started) { pairing::MomentKind::Started } else { pairing::MomentKind::Completed }
    }

    fn at(&self) -> Timestamp {
        at(self.when)
    }
}

impl Reference {
    fn apply(&mut self, step: Step) {
        let when = at(step.when);
        match step.kind {
            Kind::Stored(bytes) => self.levels.push(LevelChange { at: when, delta: bytes }),
            Kind::Freed(bytes) => self.levels.push(LevelChange { at: when, delta: -bytes }),
            Kind::Started | Kind::Ended => self.jobs.entry(step.subject).or_default().push(step),
        }
    }

    fn runs(&self) -> Vec<Run> {
        let pairs = self.jobs.values().flat_map(|moments| pair_moments(moments.iter().copied()));
        let at = |moment: Option<Step>| moment.map(|moment| at(moment.when));
        pairs.map(|pair| Run { started_at: at(pair.started), ended_at: at(pair.ended) }).collect()
    }

    fn in_spans(&self, spans: impl Iterator<Item = Span> + Clone, counted: Span) -> Vec<UsageAmounts> {
        let spans = spans.map(|span| span.intersect(counted));
        let running: Vec<_> =
            self.runs().into_iter().filter_map(|run| run.level_changes(counted.end())).flatten().collect();
        let both = areas(&self.levels, spans.clone()).into_iter().zip(areas(&running, spans));
        both.map(|(byte_ms, run_ms)| UsageAmounts::of(byte_ms, run_ms)).collect()
    }
}

/// Read models that a test feeds, and the invoice ledger on top of them.
struct Fixture {
    events: ReadModels,
    ledger: Ledger,
    clock: TestClock,
    plan: Uuid,
    month: Month,
}

impl Fixture {
    async fn open() -> Self {
        let events = ReadModels::new().await;
        let clock = TestClock::starting_at(0);
        let ledger = invoice_ledger(&events.pool, default_prices(), clock.reader());
        let plan = Uuid::now_v7();
        for (bound, size) in [("500", "60"), ("2000", "3600")] {
            let charges = format!(
                r#"[{{"meter":"storage","unit":"GiB.h","model":"graduated",
                      "tiers":[{{"up_to":"{bound}","unit_price":"0.0013"}},{{"up_to":null,"unit_price":"0.0007","flat_fee":"1.5"}}]}},
                    {{"meter":"compute","unit":"s","model":"package","free":"100","package_size":"{size}","package_price":"0.017"}}]"#
            );
            let publish = PlanCommand::Publish(PlanDefinition {
                name: "Team".into(),
                currency: "EUR".into(),
                split: SharingRule::Split,
                charges: serde_json::from_str(&charges).unwrap(),
                minimum: Some("2".parse().unwrap()),
                tax_percent: Some("21".parse().unwrap()),
            });
            ledger.plans.execute(plan, &publish, &CommandContext::new()).await.unwrap();
        }
        Self { events, ledger, clock, plan, month: "2025-10".parse().unwrap() }
    }

    /// Opens an account with a plan change in mid-month, with a price override a day later, a discount and a credit.
    async fn open_account(&mut self) -> Uuid {
        let organization = Uuid::now_v7();
        self.events.organization = organization;
        let currency = "EUR".parse().unwrap();
        let pin = |version, from| AccountCommand::AssignPlan {
            pin: Pin { plan: self.plan, version },
            currency,
            from: at(from),
            now: at(from),
            notice: None,
        };
        let opening = Opening { currency, time_zone: "Europe/Madrid".into(), plan: None };
        self.ledger.open(organization, opening, &CommandContext::new()).await.unwrap();
        let price_override = r#"{"meter":"compute","unit":"s","model":"flat","unit_price":"0.000031"}"#;
        let commands = [
            pin(1, OCTOBER + 2 * DAY),
            pin(2, OCTOBER + 15 * DAY + 7),
            AccountCommand::OverridePrice {
                meter: Meter::Compute,
                charge: Some(serde_json::from_str(price_override).unwrap()),
                from: at(OCTOBER + 16 * DAY),
            },
            AccountCommand::GrantDiscount { percent: "12.5".parse().unwrap(), reason: "r".into() },
            AccountCommand::GrantCredit { amount: "3".parse().unwrap(), reason: "r".into() },
        ];
        for command in commands {
            self.ledger.accounts.execute(organization, &command, &CommandContext::new()).await.unwrap();
        }
        organization
    }

    /// Encodes the steps as events of new files and jobs of the current organization.
    fn encode(&mut self, steps: &[Step]) -> Vec<Arc<Envelope>> {
        let organization_id = self.events.organization;
        let ids: Vec<_> = (0..6).map(|_| Uuid::now_v7()).collect();
        let mut events = Vec::new();
        for Step { subject, when, kind } in steps {
            let of_file = |event: FileEvent| (file::AGGREGATE, ids[*subject], event);
            let of_job = |event: JobEvent| (job::AGGREGATE, ids[subject + 3], event);
            let envelope = match *kind {
                Kind::Stored(bytes) => {
                    let part = part_uploaded(organization_id, 0, bytes);
                    let (name, id, event) = of_file(part.into());
                    self.events.event(name, id, *when, *when, &event)
                }
                Kind::Freed(bytes) => {
                    let (name, id, event) = of_file(FileDeleted { organization_id, bytes }.into());
                    self.events.event(name, id, *when, *when, &event)
                }
                Kind::Started => {
                    let (name, id, event) = of_job(job_started(organization_id, None).into());
                    self.events.event(name, id, *when, *when, &event)
                }
                Kind::Ended => {
                    let (name, id, event) = of_job(JobSucceeded { organization_id, exit_code: 0 }.into());
                    self.events.event(name, id, *when, *when, &event)
                }
            };
            events.push(envelope);
        }
        events
    }

    async fn draft(&self, organization: Uuid) -> (Statement, InvoiceFinalized) {
        let (statement, document) = self.ledger.draft(organization, self.month).await.unwrap();
        (statement, InvoiceFinalized { organization_id: Uuid::nil(), ..document })
    }

    /// Computes the statement from the reference input with pure functions.
    async fn compute(&self, organization: Uuid, reference: &Reference) -> Statement {
        let account = self.ledger.account(organization).await.unwrap();
        let mut plans = BTreeMap::new();
        for (_, pin) in account.pins() {
            let catalogue = self.ledger.plans.load(pin.plan).await.unwrap().state;
            plans.insert(pin, catalogue.version(pin.plan, pin.version).unwrap());
        }
        let period = self.ledger.period(&account, self.month).unwrap().0;
        let when = Cutoff::as_of(self.ledger.now());
        let counted = Span::new(period.start(), period.end().min(when.as_of));
        let terms = terms_of(&account, &plans, self.ledger.standard(), period).unwrap();
        let of_terms = reference.in_spans(terms.iter().map(|term: &Term| term.span), counted);
        let days = days(period, &zone("Europe/Madrid").unwrap()).unwrap();
        let of_days = reference.in_spans(days.iter().map(|day| day.span), counted);
        let used = MonthUsage {
            month: self.month,
            period,
            cutoff: when,
            time_zone: "Europe/Madrid".into(),
            terms: terms.into_iter().zip(of_terms).collect(),
            days: days.into_iter().zip(of_days).collect(),
            parts: Vec::new(),
            provisional: false,
        };
        used.statement(&account, &0.into()).unwrap()
    }
}

#[tokio::test]
async fn incremental_draft_equals_draft_computed_at_once() {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[11; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let mut fixture = Fixture::open().await;
    for case in 0..8 {
        let now = select(vec![OCTOBER + 10 * DAY + 1, OCTOBER + 20 * DAY, OCTOBER + 60 * DAY]);
        let (steps, now) = (vec(step(), 1..14), now).new_tree(&mut runner).unwrap().current();
        fixture.clock.set(now);

        let step_by_step = fixture.open_account().await;
        let mut reference = Reference::default();
        for (event, step) in fixture.encode(&steps).into_iter().zip(&steps) {
            fixture.events.deliver(&[event]).await;
            reference.apply(*step);
            let (drafted, _) = fixture.draft(step_by_step).await;
            let computed = fixture.compute(step_by_step, &reference).await;
            assert_eq!(drafted.invoice, computed.invoice, "case {case}: {steps:?}");
            assert_eq!(drafted.usage.days, computed.usage.days, "case {case}: {steps:?}");
        }

        let at_once = fixture.open_account().await;
        let events = fixture.encode(&steps);
        fixture.events.deliver(&events).await;
        let (statement, document) = fixture.draft(at_once).await;
        let (before, incremental) = fixture.draft(step_by_step).await;
        assert_eq!(incremental, document, "case {case}: {steps:?}");
        assert_eq!(before.usage.provisional, statement.usage.provisional);
    }
    fixture.events.close().await;
}

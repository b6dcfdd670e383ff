//! An invoice that is asked for after each event is the one that is computed once all events are there.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use billing::{
    invoicing::{
        month_usage::{Statement, Used, When},
        open::Opening,
    },
    settings,
};
use contracts::{
    file::{self, FileDeleted, FileEvent, FilePartUploaded},
    invoice::InvoiceFinalized,
    job::{self, JobEvent, JobStarted, JobSucceeded},
};
use epoch::{CommandContext, Envelope, Timestamp, local::LocalBus};
use epoch_postgres::PgStore;
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
        pairing::{self, Moment, pair},
        run::Run,
    },
    pricing::{
        meter::Meter,
        plan_aggregate::{PlanCommand, PlanDefinition},
    },
    rating::{
        term::{Term, terms_of},
        usage_amounts::Metered,
    },
    sharing::rule::Rule,
};
use uuid::Uuid;

use crate::read_models::Ledger;

/// 2025-10-01 in Madrid, where summer time ends that month.
const OCTOBER: i64 = 1_759_269_600_000;
const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// What happens to one of three files or three jobs.
#[derive(Debug, Clone, Copy)]
struct Happening {
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

fn happening() -> impl Strategy<Value = Happening> {
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
    (0..3_usize, when, kind).prop_map(|(subject, when, kind)| Happening { subject, when, kind })
}

/// The same happenings as the plain functions take them.
#[derive(Default)]
struct Plain {
    levels: Vec<LevelChange>,
    jobs: BTreeMap<usize, Vec<Happening>>,
}

impl Moment for Happening {
    fn kind(&self) -> pairing::Kind {
        if matches!(self.kind, Kind::Started) { pairing::Kind::Started } else { pairing::Kind::Completed }
    }

    fn at(&self) -> Timestamp {
        at(self.when)
    }
}

impl Plain {
    fn take(&mut self, happening: Happening) {
        let when = at(happening.when);
        match happening.kind {
            Kind::Stored(bytes) => self.levels.push(LevelChange { at: when, delta: bytes }),
            Kind::Freed(bytes) => self.levels.push(LevelChange { at: when, delta: -bytes }),
            Kind::Started | Kind::Ended => self.jobs.entry(happening.subject).or_default().push(happening),
        }
    }

    fn runs(&self) -> Vec<Run> {
        let pairs = self.jobs.values().flat_map(|moments| pair(moments.iter().copied()));
        let at = |moment: Option<Happening>| moment.map(|moment| at(moment.when));
        pairs.map(|pair| Run { started_at: at(pair.started), ended_at: at(pair.ended) }).collect()
    }

    fn in_spans(&self, spans: impl Iterator<Item = Span> + Clone, counted: Span) -> Vec<Metered> {
        let spans = spans.map(|span| span.intersect(counted));
        let running: Vec<_> =
            self.runs().into_iter().filter_map(|run| run.level_changes(counted.end())).flatten().collect();
        let both = areas(&self.levels, spans.clone()).into_iter().zip(areas(&running, spans));
        both.map(|(byte_ms, run_ms)| Metered { byte_ms, run_ms }).collect()
    }
}

/// Documents of organizations whose events are delivered by hand.
struct Office {
    events: Ledger,
    ledger: billing::invoicing::ledger::Ledger,
    clock: Arc<AtomicI64>,
    plan: Uuid,
    month: Month,
}

impl Office {
    async fn open() -> Self {
        let events = Ledger::new().await;
        let (store, appender) = PgStore::new(events.pool.clone(), LocalBus::new());
        tokio::spawn(appender.run());
        let clock = Arc::new(AtomicI64::new(0));
        let hands = Arc::clone(&clock);
        let now = Arc::new(move || at(hands.load(Ordering::SeqCst)));
        let ledger = billing::invoicing::ledger::Ledger::new(store, settings::prices(|_| None).unwrap().plan(), now);
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
                split: Rule::Split,
                charges: serde_json::from_str(&charges).unwrap(),
                minimum: Some("2".parse().unwrap()),
                tax_percent: Some("21".parse().unwrap()),
            });
            ledger.plans.execute(plan, &publish, &CommandContext::new()).await.unwrap();
        }
        Self { events, ledger, clock, plan, month: "2025-10".parse().unwrap() }
    }

    /// An organization whose plan changes in mid-month, that gets a price of its own a day later, a discount and a credit.
    async fn customer(&mut self) -> Uuid {
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
        let own = r#"{"meter":"compute","unit":"s","model":"flat","unit_price":"0.000031"}"#;
        let commands = [
            pin(1, OCTOBER + 2 * DAY),
            pin(2, OCTOBER + 15 * DAY + 7),
            AccountCommand::OverridePrice {
                meter: Meter::Compute,
                charge: Some(serde_json::from_str(own).unwrap()),
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

    /// The events of happenings, of files and jobs of this organization alone.
    fn told(&mut self, happenings: &[Happening]) -> Vec<Arc<Envelope>> {
        let organization_id = self.events.organization;
        let ids: Vec<_> = (0..6).map(|_| Uuid::now_v7()).collect();
        let mut events = Vec::new();
        for Happening { subject, when, kind } in happenings {
            let of_file = |event: FileEvent| (file::AGGREGATE, ids[*subject], event);
            let of_job = |event: JobEvent| (job::AGGREGATE, ids[subject + 3], event);
            let (part_id, sha256) = (Uuid::now_v7(), "0".repeat(64));
            let envelope = match *kind {
                Kind::Stored(bytes) => {
                    let part = FilePartUploaded { organization_id, part_id, offset: 0, bytes, sha256 };
                    let (name, id, event) = of_file(part.into());
                    self.events.event(name, id, *when, *when, &event)
                }
                Kind::Freed(bytes) => {
                    let (name, id, event) = of_file(FileDeleted { organization_id, bytes }.into());
                    self.events.event(name, id, *when, *when, &event)
                }
                Kind::Started => {
                    let started = JobStarted {
                        organization_id,
                        machine_id: ids[0],
                        machine_type: "default".into(),
                        user_id: None,
                    };
                    let (name, id, event) = of_job(started.into());
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

    /// What the plain functions make of the same.
    async fn plain(&self, organization: Uuid, plain: &Plain) -> Statement {
        let account = self.ledger.account(organization).await.unwrap();
        let mut plans = BTreeMap::new();
        for (_, pin) in account.pins() {
            let catalogue = self.ledger.plans.load(pin.plan).await.unwrap().state;
            plans.insert(pin, catalogue.version(pin.plan, pin.version).unwrap());
        }
        let period = self.ledger.period(&account, self.month).unwrap().0;
        let when = When::as_of(self.ledger.now());
        let counted = Span::new(period.start(), period.end().min(when.as_of));
        let terms = terms_of(&account, &plans, self.ledger.standard(), period).unwrap();
        let of_terms = plain.in_spans(terms.iter().map(|term: &Term| term.span), counted);
        let days = days(period, &zone("Europe/Madrid").unwrap()).unwrap();
        let of_days = plain.in_spans(days.iter().map(|day| day.span), counted);
        let used = Used {
            month: self.month,
            period,
            when,
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
async fn a_draft_updated_event_by_event_is_the_one_computed_at_once() {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[11; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let mut office = Office::open().await;
    for case in 0..8 {
        let now = select(vec![OCTOBER + 10 * DAY + 1, OCTOBER + 20 * DAY, OCTOBER + 60 * DAY]);
        let (happenings, now) = (vec(happening(), 1..14), now).new_tree(&mut runner).unwrap().current();
        office.clock.store(now, Ordering::SeqCst);

        let step_by_step = office.customer().await;
        let mut plain = Plain::default();
        for (event, happening) in office.told(&happenings).into_iter().zip(&happenings) {
            office.events.deliver(&[event]).await;
            plain.take(*happening);
            let (drafted, _) = office.draft(step_by_step).await;
            let computed = office.plain(step_by_step, &plain).await;
            assert_eq!(drafted.invoice, computed.invoice, "case {case}: {happenings:?}");
            assert_eq!(drafted.used.days, computed.used.days, "case {case}: {happenings:?}");
        }

        let at_once = office.customer().await;
        let events = office.told(&happenings);
        office.events.deliver(&events).await;
        let (statement, document) = office.draft(at_once).await;
        let (before, incremental) = office.draft(step_by_step).await;
        assert_eq!(incremental, document, "case {case}: {happenings:?}");
        assert_eq!(before.used.provisional, statement.used.provisional);
    }
    office.events.close().await;
}

//! Each event encodes with its schema and decodes to itself, and `apache-avro` reads it without Epoch.

use std::{borrow::Cow, collections::BTreeSet, fmt::Debug, marker::PhantomData};

use apache_avro::{GenericSingleObjectReader, Schema, reader::datum::GenericDatumReader};
use contracts::{
    billing_account::{
        self, AccountInvoiceVoided, AccountInvoiced, AccountOpened, AccountTimeZoneChanged, BillingAccountEvent,
        BudgetExceeded, BudgetSet, CreditGranted, DiscountGranted, PlanAssigned, PlanChangeScheduled, PriceOverridden,
        UsageMetered,
    },
    file::{self, FileDeleted, FileEvent, FilePartUploaded, FileUploadAborted, FileUploadCompleted, FileUploadStarted},
    invoice::{
        self, AdjustmentBooked, AdjustmentReleased, Correction, Day, InvoiceDrafted, InvoiceEvent, InvoiceFinalized,
        InvoiceVoided, Line,
    },
    job::{
        self, FileRole, JobAssigned, JobCancelled, JobCreated, JobEvent, JobFailed, JobFilesLinked, JobFilesUnlinked,
        JobLost, JobQueued, JobStarted, JobSucceeded, JobTimedOut,
    },
    job_configuration::{
        self, JobConfigurationDefined, JobConfigurationEvent, JobConfigurationRetired, JobConfigurationRevised,
    },
    organization::{
        self, MemberAdded, MemberRemoved, MemberRoleChanged, OrganizationCreated, OrganizationEvent,
        OrganizationRenamed, Role, StorageUsageChanged,
    },
    plan::{self, Charge, PlanEvent, PlanPublished, PlanRetired, Tier},
};
use epoch::{
    Envelope, Metadata, Position, Timestamp, Version,
    avro::{AvroCodec, AvroEvent},
    event::{DomainEvent, EncodedEvent, SchemaId},
    message::Message,
};
use proptest::{
    collection::vec,
    option,
    prelude::*,
    sample::select,
    strategy::ValueTree,
    test_runner::{TestCaseError, TestRunner},
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::catalog;

/// Checks all events of one aggregate.
struct RoundTrips<E> {
    aggregate: &'static str,
    checked: BTreeSet<&'static str>,
    events: PhantomData<E>,
}

impl<E: DomainEvent> RoundTrips<E> {
    fn of(aggregate: &'static str) -> Self {
        Self { aggregate, checked: BTreeSet::new(), events: PhantomData }
    }

    fn check<S>(mut self, payloads: impl Strategy<Value = S>) -> Self
    where
        S: AvroEvent + Into<E> + Debug + Clone + PartialEq,
    {
        let mut runner = TestRunner::default();
        let sample: E = payloads.new_tree(&mut runner).unwrap().current().into();
        let contract = Contract::of(self.aggregate, sample.name());
        runner.run(&payloads, |payload| contract.check::<S, E>(&payload)).unwrap_or_else(|error| panic!("{error}"));
        assert!(self.checked.insert(sample.name()), "{} is checked twice", sample.name());
        self
    }

    /// Asserts that no event of the aggregate was left out.
    fn assert_complete(self) {
        assert_eq!(self.checked, E::NAMES.iter().copied().collect());
    }
}

/// A schema file, and readers that do not use Epoch.
struct Contract {
    aggregate: &'static str,
    schema: Schema,
    fingerprint: SchemaId,
    datum: GenericDatumReader<'static>,
    single_object: GenericSingleObjectReader,
    /// A codec that reads with a later version of the schema.
    later: AvroCodec,
}

impl Contract {
    fn of(aggregate: &'static str, name: &'static str) -> Self {
        let files = catalog::files();
        let file = files.into_iter().find(|file| file.name == format!("{aggregate}/{name}.avsc")).unwrap();
        let schema: &'static Schema = Box::leak(Box::new(file.schema.clone()));
        let mut later: Value = serde_json::from_str(&file.text).unwrap();
        let added = json!({"name": "added_later", "type": ["null", "string"], "default": null});
        later["fields"].as_array_mut().unwrap().push(added);
        Self {
            aggregate,
            fingerprint: catalog::fingerprint(schema),
            datum: GenericDatumReader::builder(schema).build().unwrap(),
            single_object: GenericSingleObjectReader::builder().schema(file.schema.clone()).build().unwrap(),
            later: AvroCodec::new(name, &[&later.to_string(), &file.text]).unwrap(),
            schema: file.schema,
        }
    }

    fn check<S, E>(&self, payload: &S) -> Result<(), TestCaseError>
    where
        S: AvroEvent + Into<E> + Debug + Clone + PartialEq,
        E: DomainEvent,
    {
        let event: E = payload.clone().into();
        let encoded = event.encode()?;
        prop_assert_eq!(encoded.schema, self.fingerprint, "the event is written with the schema of its file");
        prop_assert_eq!(E::decode(event.name(), encoded.schema, &encoded.payload)?, event.clone());

        let mut rest = &encoded.payload[..];
        let value = self.datum.read_value(&mut rest)?;
        prop_assert!(rest.is_empty() && value.validate(&self.schema), "{:?}", value);

        let body = Message::of(&envelope(self.aggregate, event.name(), &encoded), "catacloud").body;
        let mut rest = &body[..];
        prop_assert_eq!(self.single_object.read_value(&mut rest)?, value);
        prop_assert!(rest.is_empty());

        let with_a_later_schema: S = self.later.decode(encoded.schema, &encoded.payload)?;
        prop_assert_eq!(&with_a_later_schema, payload);
        Ok(())
    }
}

fn envelope(aggregate: &'static str, event_name: &'static str, encoded: &EncodedEvent) -> Envelope {
    Envelope {
        event_id: Uuid::from_u128(1),
        aggregate: Cow::Borrowed(aggregate),
        aggregate_id: Uuid::from_u128(2),
        version: Version::new(1),
        position: Position::new(1),
        event_name: Cow::Borrowed(event_name),
        schema: encoded.schema,
        payload: encoded.payload.clone(),
        occurred_at: Timestamp::from_millis(0),
        recorded_at: Timestamp::from_millis(0),
        metadata: Metadata {
            tenant: None,
            actor: None,
            command_id: Uuid::from_u128(3),
            correlation_id: Uuid::from_u128(3),
            causation_id: None,
            trace_context: None,
        },
    }
}

fn id() -> impl Strategy<Value = Uuid> {
    any::<u128>().prop_map(Uuid::from_u128)
}

fn ids() -> impl Strategy<Value = Vec<Uuid>> {
    vec(id(), 0..8)
}

fn text() -> impl Strategy<Value = String> {
    any::<String>()
}

fn number() -> impl Strategy<Value = i64> {
    any::<i64>()
}

fn role() -> impl Strategy<Value = Role> {
    select(&[Role::Owner, Role::Admin, Role::Member, Role::Viewer])
}

fn file_role() -> impl Strategy<Value = FileRole> {
    select(&[FileRole::Input, FileRole::Output])
}

/// A strategy for a struct, from one for each of its fields.
macro_rules! payload {
    ($event:ident { $($field:ident: $strategy:expr),+ $(,)? }) => {
        ($($strategy,)+).prop_map(|($($field,)+)| $event { $($field),+ })
    };
}

#[test]
fn organization_events_round_trip() {
    RoundTrips::<OrganizationEvent>::of(organization::AGGREGATE)
        .check(payload!(OrganizationCreated { name: text() }))
        .check(payload!(OrganizationRenamed { name: text() }))
        .check(payload!(MemberAdded { user_id: id(), role: role() }))
        .check(payload!(MemberRoleChanged { user_id: id(), role: role() }))
        .check(payload!(MemberRemoved { user_id: id() }))
        .check(payload!(StorageUsageChanged { delta_bytes: number(), total_bytes: number() }))
        .assert_complete();
}

#[test]
fn job_configuration_events_round_trip() {
    RoundTrips::<JobConfigurationEvent>::of(job_configuration::AGGREGATE)
        .check(payload!(JobConfigurationDefined {
            organization_id: id(),
            name: text(),
            command: vec(text(), 0..8),
            timeout_ms: number(),
        }))
        .check(payload!(JobConfigurationRevised {
            organization_id: id(),
            name: text(),
            command: vec(text(), 0..8),
            timeout_ms: number(),
        }))
        .check(payload!(JobConfigurationRetired { organization_id: id() }))
        .assert_complete();
}

#[test]
fn file_events_round_trip() {
    RoundTrips::<FileEvent>::of(file::AGGREGATE)
        .check(payload!(FileUploadStarted {
            organization_id: id(),
            name: text(),
            content_type: text(),
            declared_bytes: number(),
            produced_by_job: option::of(id()),
        }))
        .check(payload!(FilePartUploaded {
            organization_id: id(),
            part_id: id(),
            offset: number(),
            bytes: number(),
            sha256: "[0-9a-f]{64}",
        }))
        .check(payload!(FileUploadCompleted { organization_id: id(), bytes: number() }))
        .check(payload!(FileUploadAborted { organization_id: id(), bytes: number() }))
        .check(payload!(FileDeleted { organization_id: id(), bytes: number() }))
        .assert_complete();
}

#[test]
fn job_events_round_trip() {
    RoundTrips::<JobEvent>::of(job::AGGREGATE)
        .check(payload!(JobCreated {
            organization_id: id(),
            job_configuration_id: id(),
            name: text(),
            command: vec(text(), 0..8),
            timeout_ms: number(),
            user_id: option::of(id()),
        }))
        .check(payload!(JobFilesLinked { organization_id: id(), file_ids: ids(), role: file_role() }))
        .check(payload!(JobFilesUnlinked { organization_id: id(), file_ids: ids(), role: file_role() }))
        .check(payload!(JobQueued { organization_id: id() }))
        .check(payload!(JobAssigned { organization_id: id(), machine_id: id(), machine_type: text() }))
        .check(payload!(JobStarted {
            organization_id: id(),
            machine_id: id(),
            user_id: option::of(id()),
            machine_type: text()
        }))
        .check(payload!(JobSucceeded { organization_id: id(), exit_code: any::<i32>() }))
        .check(payload!(JobFailed { organization_id: id(), exit_code: option::of(any::<i32>()), reason: text() }))
        .check(payload!(JobTimedOut { organization_id: id(), timeout_ms: number() }))
        .check(payload!(JobCancelled { organization_id: id(), reason: text() }))
        .check(payload!(JobLost { organization_id: id(), reason: text() }))
        .assert_complete();
}

fn instant() -> impl Strategy<Value = Timestamp> {
    any::<i64>().prop_map(Timestamp::from_millis)
}

fn tier() -> impl Strategy<Value = Tier> {
    payload!(Tier { up_to: option::of(text()), unit_price: text(), flat_fee: option::of(text()) })
}

fn charge() -> impl Strategy<Value = Charge> {
    payload!(Charge {
        meter: text(),
        unit: text(),
        model: text(),
        tiers: option::of(vec(tier(), 0..3)),
        unit_price: option::of(text()),
        free: option::of(text()),
        package_size: option::of(text()),
        package_price: option::of(text()),
    })
}

#[test]
fn plan_events_round_trip() {
    RoundTrips::<PlanEvent>::of(plan::AGGREGATE)
        .check(payload!(PlanPublished {
            plan_version: any::<i32>(),
            name: text(),
            currency: text(),
            split: text(),
            charges: vec(charge(), 0..3),
            minimum: option::of(text()),
            tax_percent: option::of(text()),
        }))
        .check(payload!(PlanRetired { reason: text() }))
        .assert_complete();
}

#[test]
fn billing_account_events_round_trip() {
    RoundTrips::<BillingAccountEvent>::of(billing_account::AGGREGATE)
        .check(payload!(AccountOpened { currency: text(), time_zone: text() }))
        .check(payload!(AccountTimeZoneChanged { time_zone: text(), from_month: text() }))
        .check(payload!(PlanAssigned { plan_id: id(), plan_version: any::<i32>(), from_at: instant() }))
        .check(payload!(PlanChangeScheduled {
            plan_id: id(),
            plan_version: any::<i32>(),
            from_at: instant(),
            notice: text(),
        }))
        .check(payload!(PriceOverridden { from_at: instant(), meter: text(), charge: option::of(charge()) }))
        .check(payload!(DiscountGranted { percent: text(), reason: text() }))
        .check(payload!(CreditGranted { amount: text(), reason: text() }))
        .check(payload!(UsageMetered {
            through_at: instant(),
            stored_bytes: number(),
            byte_milliseconds: text(),
            run_milliseconds: text(),
        }))
        .check(payload!(BudgetSet {
            amount: option::of(text()),
            thresholds: vec(any::<i32>(), 0..4),
            hard_stop: any::<bool>(),
            set_at: option::of(instant()),
        }))
        .check(payload!(AccountInvoiced { invoice_id: id(), end_at: instant(), credit_used: text() }))
        .check(payload!(AccountInvoiceVoided { invoice_id: id(), credit_returned: text() }))
        .check(payload!(BudgetExceeded {
            month: text(),
            kind: text(),
            threshold: any::<i32>(),
            amount: text(),
            budget: text(),
        }))
        .assert_complete();
}

fn line() -> impl Strategy<Value = Line> {
    payload!(Line {
        meter: text(),
        unit: text(),
        plan: text(),
        plan_version: any::<i32>(),
        metered: text(),
        quantity: text(),
        amount: text(),
    })
}

fn correction() -> impl Strategy<Value = Correction> {
    payload!(Correction {
        invoice_id: id(),
        month: text(),
        meter: text(),
        plan: text(),
        plan_version: any::<i32>(),
        amount: text(),
    })
}

fn day() -> impl Strategy<Value = Day> {
    payload!(Day {
        date: text(),
        start_at: instant(),
        end_at: instant(),
        byte_milliseconds: text(),
        run_milliseconds: text(),
    })
}

fn finalized() -> impl Strategy<Value = InvoiceFinalized> {
    let amounts = vec("[0-9]{1,9}", 9);
    (id(), number(), text(), vec(line(), 0..3), vec(correction(), 0..3), vec(day(), 0..3), amounts).prop_map(
        |(organization_id, number, currency, lines, corrections, days, amounts)| {
            let amount = |index: usize| amounts[index].clone();
            InvoiceFinalized {
                organization_id,
                number,
                currency,
                lines,
                corrections,
                days,
                rounding: amount(0),
                subtotal: amount(1),
                discount: amount(2),
                minimum_true_up: amount(3),
                tax: amount(4),
                total: amount(5),
                credit_applied: amount(6),
                amount_due: amount(7),
                discount_percent: amount(8),
            }
        },
    )
}

#[test]
fn invoice_events_round_trip() {
    RoundTrips::<InvoiceEvent>::of(invoice::AGGREGATE)
        .check(payload!(InvoiceDrafted {
            organization_id: id(),
            month: text(),
            start_at: instant(),
            end_at: instant(),
            time_zone: text(),
        }))
        .check(finalized())
        .check(payload!(InvoiceVoided {
            organization_id: id(),
            reason: text(),
            credit_note: option::of(number()),
            amount: option::of(text()),
        }))
        .check(payload!(AdjustmentBooked {
            organization_id: id(),
            meter: text(),
            plan: text(),
            plan_version: any::<i32>(),
            metered: text(),
            amount: text(),
            settled_in_id: id(),
            reason: text(),
        }))
        .check(payload!(AdjustmentReleased {
            organization_id: id(),
            meter: text(),
            plan: text(),
            plan_version: any::<i32>(),
            amount: text(),
            settled_in_id: id(),
        }))
        .assert_complete();
}

#[test]
fn unknown_role_decodes_as_the_default() {
    #[derive(serde::Serialize)]
    struct LaterMemberAdded {
        user_id: Uuid,
        role: LaterRole,
    }
    #[derive(serde::Serialize)]
    enum LaterRole {
        #[serde(rename = "AUDITOR")]
        Auditor,
    }

    let files = catalog::files();
    let current = &files.iter().find(|file| file.name == "organization/MemberAdded.avsc").unwrap().text;
    let later = current.replace(r#""OWNER", "#, r#""OWNER", "AUDITOR", "#);
    let user_id = Uuid::from_u128(1);
    let codec = AvroCodec::new("MemberAdded", &[&later]).unwrap();
    let written = codec.encode(&LaterMemberAdded { user_id, role: LaterRole::Auditor }).unwrap();
    let reading = AvroCodec::new("MemberAdded", &[current, &later]).unwrap();
    let read: MemberAdded = reading.decode(written.schema, &written.payload).unwrap();
    assert_eq!(read, MemberAdded { user_id, role: Role::Viewer });
}

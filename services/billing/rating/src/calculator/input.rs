//! The JSON document that `billing rate` reads.
//!
//! Its format is described in `docs/operations/rating.md`. Besides file and job events it may contain job
//! creations, which name the users that the sharing rule `unshared_only` compares.
//!
//! Every error names its place in the document. Unknown and misplaced fields are rejected, since the author
//! may have meant them to have an effect.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::Arc,
};

use epoch::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Deserializer, de};

use crate::{
    calculator::history::{Event, History, Kind},
    calendar::{
        day::zone,
        span::{Span, Window},
    },
    money::{currency::Currency, decimal::Decimal},
    pricing::{
        components::{ChargeDefinition, charges},
        plan::{Plan, PlanVersion},
    },
    rating::{
        rate::{Adjustments, RatingError},
        term::Subscription,
    },
    sharing::rule::SharingRule,
    validation::InvalidInput,
};

/// The maximum number of events. With the longest period, it keeps each sum of sizes below 2⁶³ bytes within
/// 127 bits.
const MAX_EVENTS: usize = 1 << 21;
/// The maximum number of plans, and of changes of plans.
const MAX_PLANS: usize = 1_000;
/// The maximum length of an id, in bytes.
const MAX_ID: usize = 256;
/// The maximum length of the period, in milliseconds: a hundred years.
const MAX_PERIOD_MS: i128 = 36_525 * 86_400_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Input {
    as_of: Instant,
    known_at: Option<Instant>,
    period: PeriodInput,
    time_zone: Option<String>,
    events: Vec<EventInput>,
    #[serde(default)]
    plans: Vec<PlanInput>,
    #[serde(default)]
    subscription: Vec<SubscriptionInput>,
    #[serde(default)]
    adjustments: AdjustmentsInput,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PeriodInput {
    start: Instant,
    end: Instant,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EventInput {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    occurred_at: Instant,
    recorded_at: Option<Instant>,
    #[serde(default)]
    seq: i64,
    file: Option<String>,
    job: Option<String>,
    user: Option<String>,
    bytes: Option<Size>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanInput {
    id: String,
    version: u32,
    currency: String,
    charges: Vec<ChargeDefinition>,
    split: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SubscriptionInput {
    from: Instant,
    plan: String,
    version: u32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct AdjustmentsInput {
    discount_percent: Option<Decimal>,
    minimum: Option<Decimal>,
    tax_percent: Option<Decimal>,
    credit: Option<Decimal>,
}

/// An instant in whole milliseconds.
#[derive(Debug, Clone, Copy)]
struct Instant(Timestamp);

impl<'de> Deserialize<'de> for Instant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        let instant: jiff::Timestamp =
            text.parse().map_err(|error| de::Error::custom(format!("{text:?} is not an RFC 3339 instant: {error}")))?;
        if instant.subsec_nanosecond() % 1_000_000 != 0 {
            return Err(de::Error::custom(format!("{text:?} is more precise than a millisecond")));
        }
        Ok(Self(Timestamp::from_millis(instant.as_millisecond())))
    }
}

/// A size in bytes, given as an integer or as a string of digits.
#[derive(Debug, Clone, Copy)]
struct Size(i64);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Size;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "a whole number of bytes from 0 to {}", i64::MAX)
            }

            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<Size, E> {
                let size = i64::try_from(bytes).map(Size);
                size.map_err(|_| E::invalid_value(de::Unexpected::Unsigned(bytes), &self))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
                let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
                let size = text.parse().ok().filter(|_| digits).map(Size);
                size.ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

/// The validated document without its events.
pub(super) struct RatingRequest {
    pub(super) window: Window,
    pub(super) zone: TimeZone,
    pub(super) subscriptions: Vec<Subscription>,
    pub(super) adjustments: Adjustments,
}

impl Input {
    /// Parses a document.
    ///
    /// # Errors
    /// [`InvalidInput`] with the place.
    pub(super) fn read(document: &[u8]) -> Result<Self, InvalidInput> {
        let mut json = serde_json::Deserializer::from_slice(document);
        let input: Self = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let place = error.path().to_string();
            let place = if place == "." || place == "?" { "input".to_owned() } else { place };
            InvalidInput::new(place, error.inner())
        })?;
        json.end().map_err(|error| InvalidInput::new("input", error))?;
        Ok(input)
    }

    /// Validates everything but the events.
    ///
    /// # Errors
    /// [`InvalidInput`] with the place.
    pub(super) fn request(&self) -> Result<RatingRequest, InvalidInput> {
        let (start, end) = (self.period.start.0, self.period.end.0);
        if end < start {
            return Err(InvalidInput::new("period.end", format!("{end} is earlier than the start, {start}")));
        }
        let period = Span::new(start, end);
        if period.millis() > MAX_PERIOD_MS {
            return Err(InvalidInput::new("period", "is longer than 100 years"));
        }
        let name = self.time_zone.as_deref().unwrap_or("UTC");
        let zone = zone(name).map_err(|error| InvalidInput::new("time_zone", error))?;
        let window = Window { period, as_of: self.as_of.0 };
        let subscriptions = self.subscriptions(&self.plans()?)?;
        Ok(RatingRequest { window, zone, subscriptions, adjustments: self.adjustments()? })
    }

    fn plans(&self) -> Result<BTreeMap<PlanVersion, Arc<Plan>>, InvalidInput> {
        check_count(MAX_PLANS, self.plans.len(), "plans")?;
        let mut plans = BTreeMap::new();
        for (index, input) in self.plans.iter().enumerate() {
            let place = format!("plans[{index}]");
            let plan = input.plan().map_err(|error| error.within(&place))?;
            let key = plan.key.clone();
            if plans.insert(key.clone(), Arc::new(plan)).is_some() {
                return Err(InvalidInput::new(
                    place,
                    format!("version {} of {:?} is defined twice", key.version, key.plan),
                ));
            }
        }
        Ok(plans)
    }

    fn subscriptions(&self, plans: &BTreeMap<PlanVersion, Arc<Plan>>) -> Result<Vec<Subscription>, InvalidInput> {
        check_count(MAX_PLANS, self.subscription.len(), "subscription")?;
        let mut order: Vec<_> = self.subscription.iter().enumerate().collect();
        order.sort_by_key(|(_, input)| input.from.0);
        let mut subscriptions: Vec<Subscription> = Vec::new();
        for (index, input) in order {
            let key = PlanVersion { plan: input.plan.clone(), version: input.version };
            let Some(plan) = plans.get(&key) else {
                let reason = format!("version {} of plan {:?} does not exist", key.version, key.plan);
                return Err(InvalidInput::new(format!("subscription[{index}].plan"), reason));
            };
            let same_instant = subscriptions.last().filter(|last| last.from == input.from.0);
            if same_instant.is_some_and(|last| last.plan.key != key) {
                let reason = "another plan applies from the same instant";
                return Err(InvalidInput::new(format!("subscription[{index}].from"), reason));
            }
            subscriptions.push(Subscription { from: input.from.0, plan: Arc::clone(plan) });
        }
        Ok(subscriptions)
    }

    fn adjustments(&self) -> Result<Adjustments, InvalidInput> {
        let AdjustmentsInput { discount_percent, minimum, tax_percent, credit } = &self.adjustments;
        for (name, percent) in [("discount_percent", discount_percent), ("tax_percent", tax_percent)] {
            if percent.as_ref().is_some_and(|percent| *percent > Decimal::from(100)) {
                return Err(InvalidInput::new(format!("adjustments.{name}"), "is more than 100"));
            }
        }
        let or_none = |decimal: &Option<Decimal>| decimal.clone().unwrap_or_else(Decimal::zero);
        Ok(Adjustments {
            discount_percent: or_none(discount_percent),
            minimum: or_none(minimum),
            tax_percent: or_none(tax_percent),
            credit: or_none(credit),
        })
    }

    /// Deduplicates the known events and puts them in order.
    ///
    /// # Errors
    /// [`InvalidInput`] with the place.
    pub(super) fn history(&self) -> Result<History<'_>, InvalidInput> {
        check_count(MAX_EVENTS, self.events.len(), "events")?;
        let mut seen: HashMap<&str, (usize, usize)> = HashMap::with_capacity(self.events.len());
        let mut events: Vec<Event<'_>> = Vec::with_capacity(self.events.len());
        for (index, input) in self.events.iter().enumerate() {
            let event = input.event().map_err(|error| error.within(&format!("events[{index}]")))?;
            let Some((place, first)) = seen.get(event.id).copied() else {
                seen.insert(event.id, (events.len(), index));
                events.push(event);
                continue;
            };
            let Some(known) = events.get_mut(place) else { continue };
            if !known.has_same_content(&event) {
                let reason = format!("{:?} is also the id of events[{first}], which has other content", event.id);
                return Err(InvalidInput::new(format!("events[{index}].id"), reason));
            }
            // An event is known from its first recording.
            known.recorded_at = known.recorded_at.min(event.recorded_at);
        }
        if let Some(known_at) = self.known_at {
            events.retain(|event| event.recorded_at <= known_at.0);
        }
        Ok(History::of(events))
    }
}

impl PlanInput {
    fn plan(&self) -> Result<Plan, InvalidInput> {
        let currency: Currency = self.currency.parse().map_err(|error| InvalidInput::new("currency", error))?;
        let charges = charges(&self.charges).map_err(|error| error.within("charges"))?;
        let split = self.split.as_deref().map_or(Ok(SharingRule::Split), SharingRule::parse)?;
        let key = PlanVersion { plan: text("id", Some(&self.id))?.to_owned(), version: self.version };
        Ok(Plan { split, ..Plan::new(key, currency, charges) })
    }
}

impl EventInput {
    fn event(&self) -> Result<Event<'_>, InvalidInput> {
        let file = || text("file", self.file.as_deref());
        let job = || text("job", self.job.as_deref());
        let kind = match self.kind.as_str() {
            "FileStored" => {
                let Some(Size(bytes)) = self.bytes else { return Err(InvalidInput::new("bytes", "is missing")) };
                Kind::FileStored { file: file()?, bytes }
            }
            "FileDeleted" => Kind::FileDeleted { file: file()? },
            "FileLinked" => Kind::FileLinked { job: job()?, file: file()? },
            "FileUnlinked" => Kind::FileUnlinked { job: job()?, file: file()? },
            "JobCreated" => {
                let user = self.user.as_deref().map(|user| text("user", Some(user))).transpose()?;
                Kind::JobCreated { job: job()?, user }
            }
            "JobStarted" => Kind::JobStarted { job: job()?, user: text("user", self.user.as_deref())? },
            "JobCompleted" => Kind::JobCompleted { job: job()? },
            other => return Err(InvalidInput::new("type", format!("unknown type {other:?}"))),
        };
        let (file, job, user, bytes) = kind.fields();
        let stray = [
            ("file", self.file.is_some() && !file),
            ("job", self.job.is_some() && !job),
            ("user", self.user.is_some() && !user),
            ("bytes", self.bytes.is_some() && !bytes),
        ];
        if let Some((name, _)) = stray.iter().find(|(_, stray)| *stray) {
            return Err(InvalidInput::new(*name, format!("does not belong to {}", self.kind)));
        }
        let at = self.occurred_at.0;
        let recorded_at = self.recorded_at.map_or(at, |recorded_at| recorded_at.0);
        Ok(Event { id: text("id", Some(&self.id))?, at, recorded_at, seq: self.seq, kind })
    }
}

fn text<'t>(name: &'static str, text: Option<&'t str>) -> Result<&'t str, InvalidInput> {
    match text {
        None => Err(InvalidInput::new(name, "is missing")),
        Some("") => Err(InvalidInput::new(name, "is empty")),
        Some(long) if long.len() > MAX_ID => Err(InvalidInput::new(name, format!("is longer than {MAX_ID} bytes"))),
        Some(text) => Ok(text),
    }
}

fn check_count(most: usize, count: usize, place: &str) -> Result<(), InvalidInput> {
    if count > most {
        return Err(InvalidInput::new(place, format!("{count} exceeds the maximum of {most}")));
    }
    Ok(())
}

pub(super) fn invalid_rating(error: RatingError) -> InvalidInput {
    match error {
        RatingError::CurrencyChanges { .. } => InvalidInput::new("subscription", error),
        RatingError::ExcessPrecision { field, source } => InvalidInput::new(format!("adjustments.{field}"), source),
    }
}

//! The document that `billing rate` reads, and what is wrong with one that it can't use.
//!
//! Its format is described in `docs/operations/rating.md`. Beside what files and jobs did, it may say who created jobs, which is what
//! the service goes by where a plan asks whose they are.
//!
//! The invariant: what is refused is refused with its place in the document, and what isn't refused is used. A field that doesn't
//! belong where it stands is refused too: it may have been meant to matter.

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
    sharing::rule::Rule,
    validation::Refused,
};

/// The most events of a document. With the longest period it keeps every sum of sizes below 2⁶³ bytes within 127 bits.
const MAX_EVENTS: usize = 1 << 21;
/// The most plans, and the most changes of plans.
const MAX_PLANS: usize = 1_000;
/// The longest id, in bytes.
const MAX_ID: usize = 256;
/// The longest period, in milliseconds: a hundred years.
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

/// An instant that is a whole number of milliseconds.
#[derive(Debug, Clone, Copy)]
struct Instant(Timestamp);

impl<'de> Deserialize<'de> for Instant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        let instant: jiff::Timestamp =
            text.parse().map_err(|error| de::Error::custom(format!("{text:?} is not an RFC 3339 instant: {error}")))?;
        if instant.subsec_nanosecond() % 1_000_000 != 0 {
            return Err(de::Error::custom(format!("{text:?} is finer than a millisecond")));
        }
        Ok(Self(Timestamp::from_millis(instant.as_millisecond())))
    }
}

/// A size in bytes, as an integer or as its digits in quotes.
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

/// What is asked, checked.
pub(super) struct Question {
    pub(super) window: Window,
    pub(super) zone: TimeZone,
    pub(super) subscriptions: Vec<Subscription>,
    pub(super) adjustments: Adjustments,
}

impl Input {
    /// # Errors
    /// [`Refused`] with the place.
    pub(super) fn read(document: &[u8]) -> Result<Self, Refused> {
        let mut json = serde_json::Deserializer::from_slice(document);
        let input: Self = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let place = error.path().to_string();
            let place = if place == "." || place == "?" { "input".to_owned() } else { place };
            Refused::new(place, error.inner())
        })?;
        json.end().map_err(|error| Refused::new("input", error))?;
        Ok(input)
    }

    /// Everything but the events.
    ///
    /// # Errors
    /// [`Refused`] with the place.
    pub(super) fn question(&self) -> Result<Question, Refused> {
        let (start, end) = (self.period.start.0, self.period.end.0);
        if end < start {
            return Err(Refused::new("period.end", format!("{end} lies before the start, {start}")));
        }
        let period = Span::new(start, end);
        if period.millis() > MAX_PERIOD_MS {
            return Err(Refused::new("period", "is longer than 100 years"));
        }
        let name = self.time_zone.as_deref().unwrap_or("UTC");
        let zone = zone(name).map_err(|error| Refused::new("time_zone", error))?;
        let window = Window { period, as_of: self.as_of.0 };
        let subscriptions = self.subscriptions(&self.plans()?)?;
        Ok(Question { window, zone, subscriptions, adjustments: self.adjustments()? })
    }

    fn plans(&self) -> Result<BTreeMap<PlanVersion, Arc<Plan>>, Refused> {
        at_most(MAX_PLANS, self.plans.len(), "plans")?;
        let mut plans = BTreeMap::new();
        for (index, input) in self.plans.iter().enumerate() {
            let place = format!("plans[{index}]");
            let plan = input.plan().map_err(|refused| refused.within(&place))?;
            let key = plan.key.clone();
            if plans.insert(key.clone(), Arc::new(plan)).is_some() {
                return Err(Refused::new(place, format!("{:?} has a version {} already", key.plan, key.version)));
            }
        }
        Ok(plans)
    }

    fn subscriptions(&self, plans: &BTreeMap<PlanVersion, Arc<Plan>>) -> Result<Vec<Subscription>, Refused> {
        at_most(MAX_PLANS, self.subscription.len(), "subscription")?;
        let mut order: Vec<_> = self.subscription.iter().enumerate().collect();
        order.sort_by_key(|(_, input)| input.from.0);
        let mut subscriptions: Vec<Subscription> = Vec::new();
        for (index, input) in order {
            let key = PlanVersion { plan: input.plan.clone(), version: input.version };
            let Some(plan) = plans.get(&key) else {
                let reason = format!("there is no version {} of a plan {:?}", key.version, key.plan);
                return Err(Refused::new(format!("subscription[{index}].plan"), reason));
            };
            let same_instant = subscriptions.last().filter(|last| last.from == input.from.0);
            if same_instant.is_some_and(|last| last.plan.key != key) {
                let reason = "another plan begins at the same instant";
                return Err(Refused::new(format!("subscription[{index}].from"), reason));
            }
            subscriptions.push(Subscription { from: input.from.0, plan: Arc::clone(plan) });
        }
        Ok(subscriptions)
    }

    fn adjustments(&self) -> Result<Adjustments, Refused> {
        let AdjustmentsInput { discount_percent, minimum, tax_percent, credit } = &self.adjustments;
        for (name, percent) in [("discount_percent", discount_percent), ("tax_percent", tax_percent)] {
            if percent.as_ref().is_some_and(|percent| *percent > Decimal::from(100)) {
                return Err(Refused::new(format!("adjustments.{name}"), "is more than 100"));
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

    /// The events that are known, each once, in order.
    ///
    /// # Errors
    /// [`Refused`] with the place.
    pub(super) fn history(&self) -> Result<History<'_>, Refused> {
        at_most(MAX_EVENTS, self.events.len(), "events")?;
        let mut seen: HashMap<&str, (usize, usize)> = HashMap::with_capacity(self.events.len());
        let mut events: Vec<Event<'_>> = Vec::with_capacity(self.events.len());
        for (index, input) in self.events.iter().enumerate() {
            let event = input.event().map_err(|refused| refused.within(&format!("events[{index}]")))?;
            let Some((place, first)) = seen.get(event.id).copied() else {
                seen.insert(event.id, (events.len(), index));
                events.push(event);
                continue;
            };
            let Some(known) = events.get_mut(place) else { continue };
            if !known.says_the_same(&event) {
                let reason = format!("{:?} is the id of events[{first}] too, which says something else", event.id);
                return Err(Refused::new(format!("events[{index}].id"), reason));
            }
            // It is known since it was recorded for the first time.
            known.recorded_at = known.recorded_at.min(event.recorded_at);
        }
        if let Some(known_at) = self.known_at {
            events.retain(|event| event.recorded_at <= known_at.0);
        }
        Ok(History::of(events))
    }
}

impl PlanInput {
    fn plan(&self) -> Result<Plan, Refused> {
        let currency: Currency = self.currency.parse().map_err(|error| Refused::new("currency", error))?;
        let charges = charges(&self.charges).map_err(|refused| refused.within("charges"))?;
        let split = self.split.as_deref().map_or(Ok(Rule::Split), Rule::named)?;
        let key = PlanVersion { plan: text("id", Some(&self.id))?.to_owned(), version: self.version };
        Ok(Plan { split, ..Plan::new(key, currency, charges) })
    }
}

impl EventInput {
    fn event(&self) -> Result<Event<'_>, Refused> {
        let file = || text("file", self.file.as_deref());
        let job = || text("job", self.job.as_deref());
        let kind = match self.kind.as_str() {
            "FileStored" => {
                let Some(Size(bytes)) = self.bytes else { return Err(Refused::new("bytes", "is missing")) };
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
            other => return Err(Refused::new("type", format!("there is no type {other:?}"))),
        };
        let (file, job, user, bytes) = kind.fields();
        let stray = [
            ("file", self.file.is_some() && !file),
            ("job", self.job.is_some() && !job),
            ("user", self.user.is_some() && !user),
            ("bytes", self.bytes.is_some() && !bytes),
        ];
        if let Some((name, _)) = stray.iter().find(|(_, stray)| *stray) {
            return Err(Refused::new(*name, format!("doesn't belong to {}", self.kind)));
        }
        let at = self.occurred_at.0;
        let recorded_at = self.recorded_at.map_or(at, |recorded_at| recorded_at.0);
        Ok(Event { id: text("id", Some(&self.id))?, at, recorded_at, seq: self.seq, kind })
    }
}

fn text<'t>(name: &'static str, text: Option<&'t str>) -> Result<&'t str, Refused> {
    match text {
        None => Err(Refused::new(name, "is missing")),
        Some("") => Err(Refused::new(name, "is empty")),
        Some(long) if long.len() > MAX_ID => Err(Refused::new(name, format!("is longer than {MAX_ID} bytes"))),
        Some(text) => Ok(text),
    }
}

fn at_most(most: usize, count: usize, place: &str) -> Result<(), Refused> {
    if count > most {
        return Err(Refused::new(place, format!("{count} are more than {most}")));
    }
    Ok(())
}

pub(super) fn refused_rating(error: RatingError) -> Refused {
    match error {
        RatingError::CurrencyChanges { .. } => Refused::new("subscription", error),
        RatingError::TooFine { field, source } => Refused::new(format!("adjustments.{field}"), source),
    }
}

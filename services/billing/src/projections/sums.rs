//! Level changes summed up by time: what answers read instead of single events.
//!
//! The problem: a month's answer must cost as much as a month has days, however many events there are, and however many there
//! were before.
//!
//! The invariant: the table `metering_sums` has, for each [`Scope`] and each bucket of each [width](Width), the sums of exactly the
//! changes that lie in it; it is written in the transaction that keeps the changes themselves, by one SQL function. Sums
//! that are read together with the changes of the hours that a question cuts are exact at every millisecond.

use std::collections::BTreeMap;

use epoch::Timestamp;
use sqlx::{PgConnection, Row, postgres::PgRow};
use uuid::Uuid;

use crate::domain::{
    buckets::{Piece, areas, before, within},
    metering::{LevelChange, LevelSums},
    span::Span,
};

/// Of what level, and by whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Bytes stored by the organization.
    Storage,
    /// Jobs running.
    Running,
    /// Jobs running, by user.
    RunningByUser,
    /// Jobs running, by the configuration they were created from.
    RunningByConfiguration,
    /// Jobs running, by machine.
    RunningByMachine,
}

impl Scope {
    /// All that a run counts in.
    pub const OF_RUNS: [Self; 4] =
        [Self::Running, Self::RunningByUser, Self::RunningByConfiguration, Self::RunningByMachine];

    /// The meter and the scope as they are kept.
    pub(crate) const fn numbers(self) -> (i16, i16) {
        match self {
            Self::Storage => (1, 0),
            Self::Running => (2, 0),
            Self::RunningByUser => (2, 1),
            Self::RunningByConfiguration => (2, 2),
            Self::RunningByMachine => (2, 3),
        }
    }
}

/// Changes that are to be taken in, each once.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    organizations: Vec<Uuid>,
    meters: Vec<i16>,
    scopes: Vec<i16>,
    subjects: Vec<Uuid>,
    instants: Vec<i64>,
    deltas: Vec<i64>,
}

impl Changes {
    /// A change of a subject's level; nobody's without one.
    pub(crate) fn push(&mut self, organization: Uuid, scope: Scope, subject: Option<Uuid>, change: LevelChange) {
        let (meter, number) = scope.numbers();
        self.organizations.push(organization);
        self.meters.push(meter);
        self.scopes.push(number);
        self.subjects.push(subject.unwrap_or_default());
        self.instants.push(change.at.as_millis());
        self.deltas.push(change.delta);
    }

    pub(crate) async fn write(self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        if self.instants.is_empty() {
            return Ok(());
        }
        sqlx::query("select metering_add($1, $2, $3, $4, $5, $6)")
            .bind(self.organizations)
            .bind(self.meters)
            .bind(self.scopes)
            .bind(self.subjects)
            .bind(self.instants)
            .bind(self.deltas)
            .execute(connection)
            .await?;
        Ok(())
    }
}

/// A subject's sums around spans that follow each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sums {
    /// Of all changes before the first span.
    pub before: LevelSums,
    /// Of the changes in each span.
    pub within: Vec<LevelSums>,
}

impl Sums {
    fn none(spans: usize) -> Self {
        Self { before: LevelSums::default(), within: vec![LevelSums::default(); spans] }
    }

    /// The level when the first span begins.
    #[must_use]
    pub fn level_before(&self) -> i128 {
        self.before.level()
    }

    /// The area over each span; they are those that were read.
    #[must_use]
    pub fn areas(&self, spans: &[Span]) -> Vec<i128> {
        areas(self.before, spans, &self.within)
    }

    /// Forgets a change that is among them.
    fn forget(&mut self, change: LevelChange, from: Timestamp, spans: &[Span]) {
        let mut sums = LevelSums::default();
        sums.add(change);
        if change.at < from {
            self.before = self.before.without(sums);
            return;
        }
        let index = spans.partition_point(|span| span.end() <= change.at);
        if spans.get(index).is_some_and(|span| span.start() <= change.at)
            && let Some(kept) = self.within.get_mut(index)
        {
            *kept = kept.without(sums);
        }
    }
}

/// The sums of several scopes, by subject; nobody is the nil id, and the organization too.
#[derive(Debug, Clone, Default)]
pub struct Read(BTreeMap<(Scope, Uuid), Sums>);

impl Read {
    /// A scope's sums, where it has only one subject.
    #[must_use]
    pub fn only(&self, scope: Scope, spans: usize) -> Sums {
        self.0.get(&(scope, Uuid::nil())).cloned().unwrap_or_else(|| Sums::none(spans))
    }

    /// A scope's subjects and their sums, by id; nobody comes first.
    pub fn of(&self, scope: Scope) -> impl Iterator<Item = (Option<Uuid>, &Sums)> {
        let all = self.0.range((scope, Uuid::nil())..=(scope, Uuid::max()));
        all.map(|((_, subject), sums)| ((!subject.is_nil()).then_some(*subject), sums))
    }

    /// Forgets changes that are among what was read with this `from` and these spans.
    pub fn forget(&mut self, changes: &[(Scope, Option<Uuid>, LevelChange)], from: Timestamp, spans: &[Span]) {
        for (scope, subject, change) in changes {
            let key = (*scope, subject.unwrap_or_default());
            self.0.entry(key).or_insert_with(|| Sums::none(spans.len())).forget(*change, from, spans);
        }
    }

    fn add(&mut self, row: &PgRow, scope: Scope, spans: usize) -> Result<(), sqlx::Error> {
        let sums = LevelSums::of(whole(row, "s0")?, whole(row, "s1")?);
        let kept = self.0.entry((scope, row.try_get("subject")?)).or_insert_with(|| Sums::none(spans));
        let place = match row.try_get::<i32, _>("place")? {
            0 => Some(&mut kept.before),
            span => usize::try_from(span - 1).ok().and_then(|span| kept.within.get_mut(span)),
        };
        if let Some(place) = place {
            *place = place.merge(sums);
        }
        Ok(())
    }
}

/// A `numeric` that was selected as text.
pub(crate) fn whole(row: &PgRow, column: &str) -> Result<i128, sqlx::Error> {
    let text: &str = row.try_get(column)?;
    text.parse().map_err(|error: std::num::ParseIntError| sqlx::Error::Decode(error.into()))
}

const BUCKETS: &str = "select p.place, p.meter, p.scope, s.subject, s.s0::text, s.s1::text \
     from unnest($2::integer[], $3::smallint[], $4::smallint[], $5::smallint[], $6::bigint[], $7::bigint[]) \
         as p (place, meter, scope, width, first, last) \
     cross join lateral ( \
         select m.subject, sum(m.s0) as s0, sum(m.s1) as s1 from metering_sums m \
         where m.organization_id = $1 and m.meter = p.meter and m.scope = p.scope and m.width = p.width \
             and m.bucket >= p.first and m.bucket < p.last \
         group by m.subject \
     ) s";

const STORAGE_CHANGES: &str = "select p.place, '00000000-0000-0000-0000-000000000000'::uuid as subject, s.s0::text, s.s1::text \
     from unnest($2::integer[], $3::bigint[], $4::bigint[]) as p (place, first, last) \
     cross join lateral ( \
         select sum(c.delta_bytes) as s0, sum(c.delta_bytes::numeric * c.at) as s1 from storage_changes c \
         where c.organization_id = $1 and c.at >= p.first and c.at < p.last \
     ) s where s.s0 is not null";

/// A run that ended before it started changes nothing.
const RUN_CHANGES: &str = "select p.place, k.scope, k.subject, sum(s.delta)::text as s0, sum(s.delta::numeric * s.at)::text as s1 \
     from unnest($2::integer[], $3::bigint[], $4::bigint[]) as p (place, first, last) \
     cross join lateral ( \
         select 1 as delta, r.started_at as at, r.user_id, r.configuration_id, r.machine_id from runs r \
         where r.organization_id = $1 and r.started_at >= p.first and r.started_at < p.last \
             and (r.ended_at is null or r.ended_at >= r.started_at) \
         union all \
         select -1, r.ended_at, r.user_id, r.configuration_id, r.machine_id from runs r \
         where r.organization_id = $1 and r.ended_at >= p.first and r.ended_at < p.last and r.ended_at >= r.started_at \
     ) s \
     cross join lateral ( \
         select n.scope, coalesce(case n.scope when 1 then s.user_id when 2 then s.configuration_id when 3 then s.machine_id end, \
             '00000000-0000-0000-0000-000000000000'::uuid) as subject \
         from unnest($5::smallint[]) as n (scope) \
     ) k \
     group by p.place, k.scope, k.subject";

/// Reads sums of scopes before `from` and in spans that follow each other from there on.
///
/// # Errors
/// When the database gives no answer.
pub async fn read(
    connection: &mut PgConnection,
    organization: Uuid,
    scopes: &[Scope],
    from: Timestamp,
    spans: &[Span],
) -> Result<Read, sqlx::Error> {
    let (mut places, mut meters, mut numbers, mut widths) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut firsts, mut lasts) = (Vec::new(), Vec::new());
    let (mut cut_places, mut cut_firsts, mut cut_lasts) = (Vec::new(), Vec::new(), Vec::new());
    let pieces_of_spans = (1_i32..).zip(spans).map(|(place, span)| (place, within(*span)));
    for (place, pieces) in std::iter::once((0, before(from))).chain(pieces_of_spans) {
        for piece in pieces {
            match piece {
                Piece::Buckets { width, first, end } => {
                    for scope in scopes {
                        let (meter, number) = scope.numbers();
                        places.push(place);
                        meters.push(meter);
                        numbers.push(number);
                        widths.push(width.number());
                        firsts.push(first);
                        lasts.push(end);
                    }
                }
                Piece::Changes(span) => {
                    cut_places.push(place);
                    cut_firsts.push(span.start().as_millis());
                    cut_lasts.push(span.end().as_millis());
                }
            }
        }
    }
    let mut read = Read::default();
    let rows = sqlx::query(BUCKETS)
        .bind(organization)
        .bind(places)
        .bind(meters)
        .bind(numbers)
        .bind(widths)
        .bind(firsts)
        .bind(lasts)
        .fetch_all(&mut *connection)
        .await?;
    for row in &rows {
        let kept = (row.try_get("meter")?, row.try_get("scope")?);
        if let Some(scope) = scopes.iter().find(|scope| scope.numbers() == kept) {
            read.add(row, *scope, spans.len())?;
        }
    }
    if cut_places.is_empty() {
        return Ok(read);
    }
    if scopes.contains(&Scope::Storage) {
        let cut = sqlx::query(STORAGE_CHANGES).bind(organization).bind(&cut_places).bind(&cut_firsts).bind(&cut_lasts);
        for row in &cut.fetch_all(&mut *connection).await? {
            read.add(row, Scope::Storage, spans.len())?;
        }
    }
    let of_runs: Vec<_> = scopes.iter().filter(|scope| **scope != Scope::Storage).copied().collect();
    if !of_runs.is_empty() {
        let numbers: Vec<i16> = of_runs.iter().map(|scope| scope.numbers().1).collect();
        let cut = sqlx::query(RUN_CHANGES).bind(organization).bind(cut_places).bind(cut_firsts).bind(cut_lasts);
        for row in &cut.bind(numbers).fetch_all(&mut *connection).await? {
            let kept: i16 = row.try_get("scope")?;
            if let Some(scope) = of_runs.iter().find(|scope| scope.numbers().1 == kept) {
                read.add(row, *scope, spans.len())?;
            }
        }
    }
    Ok(read)
}

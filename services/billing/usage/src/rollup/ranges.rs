//! Level changes summed up by time: what answers read instead of single events.
//!
//! The problem: a month's answer must cost as much as a month has days, however many events there are, and however many there
//! were before.
//!
//! The invariant: the tables `metering_storage_sums` and `metering_run_sums` have, for each [`Scope`] and each bucket of each
//! [width](Width), the sums of exactly the changes that lie in it. Each is written by one projection alone, in the transaction that
//! keeps the changes themselves, so it can be rebuilt with them. Sums that are read together with the changes of the hours that a
//! question cuts are exact at every millisecond.

use std::collections::BTreeMap;

use epoch::Timestamp;
use rating::{
    calendar::span::Span,
    metering::level::{LevelChange, LevelSums},
};
use sqlx::{
    PgConnection, Postgres, Row,
    postgres::{PgArguments, PgRow},
    query::Query,
};
use uuid::Uuid;

use crate::{
    read_error::{ReadError, bounded},
    rollup::bucket::{MIDDLE_OF_DAY, Piece, Width, areas, before, by_days, within},
    row::{A, B, ID, PLACE, X, Y, whole},
};

/// The statement that reads sums. Others begin before it.
pub const STATEMENT: &str = include_str!("../queries/sums.sql");

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
    /// Jobs running, by the type of the machine.
    RunningByMachineType,
}

impl Scope {
    /// All that a run counts in.
    pub const OF_RUNS: [Self; 5] = [
        Self::Running,
        Self::RunningByUser,
        Self::RunningByConfiguration,
        Self::RunningByMachine,
        Self::RunningByMachineType,
    ];

    /// The meter and the scope as they are kept.
    pub(crate) const fn numbers(self) -> (i16, i16) {
        match self {
            Self::Storage => (1, 0),
            Self::Running => (2, 0),
            Self::RunningByUser => (2, 1),
            Self::RunningByConfiguration => (2, 2),
            Self::RunningByMachine => (2, 3),
            Self::RunningByMachineType => (2, 4),
        }
    }

    /// The scope that is kept under these numbers.
    pub(crate) fn of_numbers(meter: i64, scope: i64) -> Option<Self> {
        let mut all = std::iter::once(Self::Storage).chain(Self::OF_RUNS);
        all.find(|of| {
            let numbers = of.numbers();
            (i64::from(numbers.0), i64::from(numbers.1)) == (meter, scope)
        })
    }
}

/// Changes of how many jobs run that are to be taken in, each once.
#[derive(Debug, Default)]
pub(crate) struct RunChanges {
    organizations: Vec<Uuid>,
    scopes: Vec<i16>,
    subjects: Vec<Uuid>,
    instants: Vec<i64>,
    deltas: Vec<i64>,
}

impl RunChanges {
    /// A change of a subject's level; nobody's without one.
    pub(crate) fn push(&mut self, organization: Uuid, scope: Scope, subject: Option<Uuid>, change: LevelChange) {
        self.organizations.push(organization);
        self.scopes.push(scope.numbers().1);
        self.subjects.push(subject.unwrap_or_default());
        self.instants.push(change.at.as_millis());
        self.deltas.push(change.delta);
    }

    pub(crate) async fn write(self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        if self.instants.is_empty() {
            return Ok(());
        }
        sqlx::query("select metering_run_sums_add($1, $2, $3, $4, $5)")
            .bind(self.organizations)
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

    /// The level when the last span ends.
    #[must_use]
    pub fn level(&self) -> i128 {
        self.within.iter().fold(self.before, |sums, span| sums.merge(*span)).level()
    }

    /// The area from `from` to `end`, when the first span begins and the last one ends.
    #[must_use]
    pub fn area(&self, from: Timestamp, end: Timestamp) -> i128 {
        let at_end = self.within.iter().fold(self.before, |sums, span| sums.merge(*span));
        at_end.area_until(end) - self.before.area_until(from)
    }

    /// The area over each span; they are those that were read, or the first of them.
    #[must_use]
    pub fn areas(&self, spans: &[Span]) -> Vec<i128> {
        areas(self.before, spans, &self.within)
    }

    /// Takes a change out.
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
    /// How many subjects there are, in all scopes.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// A scope's sums, where it has only one subject.
    #[must_use]
    pub fn only(&self, scope: Scope, spans: usize) -> Sums {
        self.0.get(&(scope, Uuid::nil())).cloned().unwrap_or_else(|| Sums::none(spans))
    }

    /// Takes in a row of the statement of sums, of at most so many sums in all.
    pub(crate) fn take_in(&mut self, row: &PgRow, spans: usize, max_sums: i64) -> Result<(), ReadError> {
        let sums = LevelSums::of(whole(row, X)?, whole(row, Y)?);
        if let Some(scope) = Scope::of_numbers(row.try_get(A)?, row.try_get(B)?) {
            self.add(scope, row.try_get(ID)?, row.try_get(PLACE)?, sums, spans);
            bounded(self.len().saturating_mul(spans), max_sums, "sums by subject")?;
        }
        Ok(())
    }

    /// Takes a subject's sums, without changes that are among them.
    pub(crate) fn take(
        &mut self,
        scope: Scope,
        subject: Uuid,
        without: &[LevelChange],
        from: Timestamp,
        spans: &[Span],
    ) -> Option<Sums> {
        let mut sums = self.0.remove(&(scope, subject))?;
        for change in without {
            sums.forget(*change, from, spans);
        }
        Some(sums)
    }

    /// A scope's subjects and their sums, by id; nobody comes first.
    pub fn of(&self, scope: Scope) -> impl Iterator<Item = (Option<Uuid>, &Sums)> {
        let all = self.0.range((scope, Uuid::nil())..=(scope, Uuid::max()));
        all.map(|((_, subject), sums)| ((!subject.is_nil()).then_some(*subject), sums))
    }

    /// Takes changes out of what was read with this `from` and these spans; what is to be among them instead is given with its sign
    /// turned round.
    pub fn forget(&mut self, changes: &[(Scope, Option<Uuid>, LevelChange)], from: Timestamp, spans: &[Span]) {
        for (scope, subject, change) in changes {
            let key = (*scope, subject.unwrap_or_default());
            self.0.entry(key).or_insert_with(|| Sums::none(spans.len())).forget(*change, from, spans);
        }
    }

    /// Takes in sums of a subject: those before the first of so many spans (place 0), or those in a span, counted from 1.
    pub(crate) fn add(&mut self, scope: Scope, subject: Uuid, place: i32, sums: LevelSums, spans: usize) {
        let kept = self.0.entry((scope, subject)).or_insert_with(|| Sums::none(spans));
        let place = match usize::try_from(place) {
            Ok(0) => Some(&mut kept.before),
            Ok(span) => kept.within.get_mut(span - 1),
            Err(_) => None,
        };
        if let Some(place) = place {
            *place = place.merge(sums);
        }
    }
}

/// What is read of the sums, as the statement of an answer takes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Pieces {
    /// Where spans start, and where the last one ends.
    pub(crate) edges: Vec<i64>,
    pub(crate) buckets: Buckets,
    pub(crate) changes: Changes,
    pub(crate) at_edges: AtEdges,
}

/// Ranges of buckets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Buckets {
    pub(crate) meters: Vec<i16>,
    pub(crate) scopes: Vec<i16>,
    pub(crate) widths: Vec<i16>,
    pub(crate) millis: Vec<i64>,
    /// How long after its start the instant is that says in which span a bucket counts.
    pub(crate) shifts: Vec<i64>,
    pub(crate) firsts: Vec<i64>,
    pub(crate) ends: Vec<i64>,
    /// Where they count, if it isn't where they lie.
    pub(crate) places: Vec<Option<i32>>,
}

/// The changes themselves, of hours that are cut.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) meters: Vec<i16>,
    pub(crate) scopes: Vec<i16>,
    pub(crate) firsts: Vec<i64>,
    pub(crate) ends: Vec<i64>,
    /// Where they count, if it isn't where they lie.
    pub(crate) places: Vec<Option<i32>>,
    /// Whether they lie between an edge and its midnight, and so count in another span than their day.
    pub(crate) at_edges: Vec<bool>,
}

/// The hours between edges and their midnights, which count in another span than their day.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct AtEdges {
    pub(crate) hours: Vec<i64>,
    /// Whether storage is read.
    pub(crate) storage: bool,
    /// What of runs is read.
    pub(crate) scopes: Vec<i16>,
}

/// Where what a piece has counts.
#[derive(Debug, Clone, Copy)]
enum Counts {
    /// Where it lies, as far as this instant after its start says so.
    Within(i64),
    /// There.
    In(i32),
    /// Where it lies, instead of where its day does.
    AtEdge,
}

impl Pieces {
    /// For spans that follow each other; no sums yet.
    pub(crate) fn within(spans: &[Span]) -> Self {
        let ends = spans.iter().map(|span| span.start()).chain(spans.last().map(|last| last.end()));
        Self { edges: ends.map(Timestamp::as_millis).collect(), ..Self::default() }
    }

    /// Adds sums of these scopes, in each of the spans, which begin at `from`, and of all before.
    pub(crate) fn add(&mut self, scopes: &[Scope], from: Timestamp, spans: &[Span]) {
        let Some(by_days) = by_days(spans) else {
            for piece in side_by_side(from, spans) {
                self.push(scopes, piece, Counts::Within(0));
            }
            return;
        };
        for piece in before(from) {
            self.push(scopes, piece, Counts::Within(0));
        }
        let days = Piece::Buckets { width: Width::Day, first: by_days.days.0, end: by_days.days.1 };
        self.push(scopes, days, Counts::Within(MIDDLE_OF_DAY));
        for piece in by_days.at_edges {
            match piece {
                Piece::Buckets { first, end, .. } => self.at_edges.hours.extend(first..end),
                Piece::Changes(_) => self.push(scopes, piece, Counts::AtEdge),
            }
        }
        for (meter, scope) in scopes.iter().map(|scope| scope.numbers()) {
            match meter {
                1 => self.at_edges.storage = true,
                _ => self.at_edges.scopes.push(scope),
            }
        }
    }

    /// Adds sums of these scopes: all before `from`, and all from there to `end`, as if they lay in the first span.
    pub(crate) fn add_whole(&mut self, scopes: &[Scope], from: Timestamp, end: Timestamp) {
        for piece in before(from) {
            self.push(scopes, piece, Counts::In(0));
        }
        for piece in within(Span::new(from, end)) {
            self.push(scopes, piece, Counts::In(1));
        }
    }

    /// The first arguments of a statement that has the statement of sums in it.
    pub(crate) fn bind<'q>(self, statement: &'static str, organization: Uuid) -> Query<'q, Postgres, PgArguments> {
        let Self { edges, buckets, changes, at_edges } = self;
        sqlx::query(statement)
            .bind(organization)
            .bind(edges)
            .bind(buckets.meters)
            .bind(buckets.scopes)
            .bind(buckets.widths)
            .bind(buckets.millis)
            .bind(buckets.shifts)
            .bind(buckets.firsts)
            .bind(buckets.ends)
            .bind(buckets.places)
            .bind(changes.meters)
            .bind(changes.scopes)
            .bind(changes.firsts)
            .bind(changes.ends)
            .bind(changes.places)
            .bind(changes.at_edges)
            .bind(at_edges.hours)
            .bind(at_edges.storage)
            .bind(at_edges.scopes)
    }

    fn push(&mut self, scopes: &[Scope], piece: Piece, counts: Counts) {
        let (shift, place) = match counts {
            Counts::Within(shift) => (shift, None),
            Counts::In(place) => (0, Some(place)),
            Counts::AtEdge => (0, None),
        };
        for (meter, scope) in scopes.iter().map(|scope| scope.numbers()) {
            match piece {
                Piece::Buckets { width, first, end } => {
                    let to = &mut self.buckets;
                    to.meters.push(meter);
                    to.scopes.push(scope);
                    to.widths.push(width.number());
                    to.millis.push(width.millis());
                    to.shifts.push(shift);
                    to.firsts.push(first);
                    to.ends.push(end);
                    to.places.push(place);
                }
                Piece::Changes(span) => {
                    let to = &mut self.changes;
                    to.meters.push(meter);
                    to.scopes.push(scope);
                    to.firsts.push(span.start().as_millis());
                    to.ends.push(span.end().as_millis());
                    to.places.push(place);
                    to.at_edges.push(matches!(counts, Counts::AtEdge));
                }
            }
        }
    }
}

/// The pieces of all time before `from`, and of spans that follow each other from there on.
///
/// What lies side by side is read as one range, of whichever span it is: where the spans start tells what belongs to which.
fn side_by_side(from: Timestamp, spans: &[Span]) -> Vec<Piece> {
    let mut pieces = before(from);
    for piece in spans.iter().flat_map(|span| within(*span)) {
        match (pieces.last_mut(), piece) {
            (Some(Piece::Buckets { width: last, end: reached, .. }), Piece::Buckets { width, first, end })
                if *last == width && *reached == first =>
            {
                *reached = end;
            }
            (Some(Piece::Changes(last)), Piece::Changes(next)) if last.end() == next.start() => {
                *last = Span::new(last.start(), next.end());
            }
            _ => pieces.push(piece),
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use epoch::Timestamp;

    use super::{Pieces, Scope};
    use rating::calendar::span::Span;

    const HOUR: i64 = 3_600_000;

    #[test]
    fn a_month_is_its_days_and_few_hours_in_every_zone() {
        // October 2025, beginning on the hour, on the half, beyond noon and in the middle of nowhere.
        for (shift, hours, cuts) in
            [(0, 0, 0), (-2 * HOUR, 2, 0), (-11 * HOUR / 2, 5, 32), (14 * HOUR, 10, 0), (-1, 0, 32)]
        {
            let day = |number: i64| Timestamp::from_millis(1_759_276_800_000 + shift + number * 24 * HOUR);
            let days: Vec<_> = (0..31).map(|number| Span::new(day(number), day(number + 1))).collect();
            let mut pieces = Pieces::within(&days);
            pieces.add(&[Scope::Storage], day(0), &days);
            assert_eq!(pieces.at_edges.hours.len(), 32 * hours, "{shift}");
            let ranges = pieces.buckets.firsts.iter().zip(&pieces.buckets.ends);
            let buckets: i64 = ranges.map(|(first, end)| end.saturating_sub((*first).max(0))).sum();
            assert!(buckets < 31 + 100, "{shift}: {buckets} buckets");
            assert_eq!((pieces.edges.len(), pieces.changes.firsts.len() / 32 * 32), (32, cuts), "{shift}");
            let mut pieces = Pieces::within(&days);
            pieces.add_whole(&[Scope::RunningByUser], day(0), day(31));
            assert!(pieces.buckets.firsts.len() <= 9, "{shift}: {} ranges", pieces.buckets.firsts.len());
            assert!(pieces.changes.firsts.len() <= 3, "{shift}");
        }
    }
}

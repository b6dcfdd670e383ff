use std::collections::BTreeMap;

use epoch::Timestamp;
use proptest::{collection::vec, prelude::*, sample::select};

use super::{ByDays, MIDDLE_OF_DAY, Piece, Width, areas, before, by_days, within};
use rating::{
    calendar::{
        day::{days, zone},
        span::Span,
    },
    metering::level::{LevelChange, LevelSums, area},
};

/// 2024-11-01, late enough that buckets of all widths occur.
const START: i64 = 1_730_419_200_000;
const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// The stored rollups: one row for each width and bucket with changes.
#[derive(Default, PartialEq, Debug)]
struct Rollups(BTreeMap<(Width, i64), LevelSums>);

impl Rollups {
    fn of(changes: &[LevelChange]) -> Self {
        let mut rollups = Self::default();
        for change in changes {
            for width in Width::ALL {
                rollups.0.entry((width, width.bucket(change.at))).or_default().add(*change);
            }
        }
        rollups
    }

    fn read(&self, changes: &[LevelChange], pieces: &[Piece]) -> LevelSums {
        let mut sums = LevelSums::default();
        for piece in pieces {
            match *piece {
                Piece::Buckets { width, first, end } => {
                    for row in self.0.range((width, first)..(width, end)) {
                        sums = sums.merge(*row.1);
                    }
                }
                Piece::Changes(span) => {
                    for change in changes.iter().filter(|change| span.start() <= change.at && change.at < span.end()) {
                        sums.add(*change);
                    }
                }
            }
        }
        sums
    }
}

fn changes() -> impl Strategy<Value = Vec<LevelChange>> {
    let when = prop_oneof![
        START - 2_000 * DAY..START + 60 * DAY,
        START..START + 60 * DAY,
        // Near the edges of buckets.
        (-40..60_i64).prop_map(|hours| START + hours * HOUR),
        -5 * DAY..5 * DAY,
    ];
    vec((when, -1_000_000..1_000_000_000_000_i64), 0..60)
        .prop_map(|all| all.into_iter().map(|(millis, delta)| LevelChange { at: at(millis), delta }).collect())
}

const ZONES: [&str; 8] = [
    "UTC",
    "Europe/Madrid",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Pacific/Chatham",
    "America/St_Johns",
    "Pacific/Kiritimati",
];

#[test]
fn span_takes_the_widest_buckets_that_fit() {
    let madrid = Span::new(at(START - 2 * HOUR), at(START + 22 * HOUR));
    let hours = |first, end| Piece::Buckets { width: Width::Hour, first, end };
    assert_eq!(within(madrid), [hours(START / HOUR - 2, START / HOUR + 22)]);
    let day = Piece::Buckets { width: Width::Day, first: START / DAY, end: START / DAY + 1 };
    assert_eq!(within(Span::new(at(START), at(START + DAY))), [day]);
    let half = Span::new(at(START - HOUR / 2), at(START + DAY + 1));
    let edges = |start, end| Piece::Changes(Span::new(at(start), at(end)));
    assert_eq!(within(half), [edges(START - HOUR / 2, START), day, edges(START + DAY, START + DAY + 1)]);
    assert_eq!(within(Span::new(at(START), at(START))), []);
    assert!(before(at(START + 12_345)).len() <= 5);
}

#[test]
fn widths_nest_and_have_distinct_numbers() {
    for pair in Width::ALL.windows(2) {
        assert_eq!(pair[1].millis() % pair[0].millis(), 0);
        assert!(pair[0].number() < pair[1].number());
    }
    assert_eq!(Width::Hour.bucket(at(-1)), -1);
    assert_eq!(Width::Day.span(-1), Span::new(at(-DAY), at(0)));
}

proptest! {
    #[test]
    fn days_of_every_zone_match_the_plain_integral(
        changes in changes(), zone_name in select(&ZONES[..]), start in START - 5 * DAY..START + 40 * DAY, length in 0..35 * DAY,
    ) {
        let period = Span::new(at(start), at(start + length));
        let days: Vec<_> = days(period, &zone(zone_name).unwrap()).unwrap().iter().map(|day| day.span).collect();
        let rollups = Rollups::of(&changes);
        let sums: Vec<_> = days.iter().map(|day| rollups.read(&changes, &within(*day))).collect();
        let read = areas(rollups.read(&changes, &before(period.start())), &days, &sums);
        let plain: Vec<_> = days.iter().map(|day| area(&changes, *day)).collect();
        prop_assert_eq!(&read, &plain);
        prop_assert_eq!(read.iter().sum::<i128>(), area(&changes, period), "days sum to the period");
    }

    /// Includes spans several of which start in one UTC day.
    #[test]
    fn spans_by_whole_days_match_the_plain_integral(
        changes in changes(), start in prop_oneof![START - 5 * DAY..START + 40 * DAY, START + 12 * HOUR - 2..START + 12 * HOUR + 3],
        lengths in vec(prop_oneof![4 => DAY..3 * DAY, 2 => Just(DAY), 1 => Just(HOUR / 2), 1 => 0..1_000_i64], 2..20),
    ) {
        let mut spans: Vec<Span> = Vec::new();
        for length in lengths {
            let from = spans.last().map_or(at(start), |last| last.end());
            spans.push(Span::new(from, at(from.as_millis() + length)));
        }
        let Some(ByDays { days, at_edges }) = by_days(&spans) else { return Err(TestCaseError::reject("short")) };
        let rollups = Rollups::of(&changes);
        let mut sums = vec![LevelSums::default(); spans.len()];
        let has = |at: i64| spans.iter().position(|span| span.start().as_millis() <= at && at < span.end().as_millis());
        let middle = |at: i64| at.div_euclid(DAY) * DAY + MIDDLE_OF_DAY;
        for day in days.0..days.1 {
            let index = has(middle(day * DAY)).unwrap();
            let one = [Piece::Buckets { width: Width::Day, first: day, end: day + 1 }];
            sums[index] = sums[index].merge(rollups.read(&changes, &one));
        }
        for piece in at_edges {
            let parts: Vec<_> = match piece {
                Piece::Buckets { width: Width::Hour, first, end } => (first..end)
                    .map(|first| (first * HOUR, Piece::Buckets { width: Width::Hour, first, end: first + 1 }))
                    .collect(),
                Piece::Buckets { .. } => panic!("{piece:?} is wider than an hour"),
                Piece::Changes(span) => vec![(span.start().as_millis(), piece)],
            };
            for (start, part) in parts {
                let part = rollups.read(&changes, &[part]);
                if let Some(own) = has(start) {
                    sums[own] = sums[own].merge(part);
                }
                if let Some(of_day) = has(middle(start)) {
                    sums[of_day] = sums[of_day].without(part);
                }
            }
        }
        let read = areas(rollups.read(&changes, &before(at(start))), &spans, &sums);
        let plain: Vec<_> = spans.iter().map(|span| area(&changes, *span)).collect();
        prop_assert_eq!(read, plain);
    }

    #[test]
    fn pieces_partition_the_span(start in START - 3 * DAY..START + 3 * DAY, length in 0..1_100 * DAY) {
        let span = Span::new(at(start), at(start + length));
        let mut reached = span.start();
        for piece in within(span) {
            let part = match piece {
                Piece::Buckets { width, first, end } => Span::new(width.span(first).start(), width.span(end).start()),
                Piece::Changes(part) => {
                    prop_assert!(part.millis() < i128::from(HOUR));
                    part
                }
            };
            prop_assert_eq!(part.start(), reached);
            prop_assert!(!part.is_empty());
            reached = part.end();
        }
        prop_assert_eq!(reached, span.end());
    }

    #[test]
    fn rollups_do_not_depend_on_the_order_of_changes(
        (all, shuffled) in changes().prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle())), cut in 0..60_usize,
    ) {
        let (early, late) = shuffled.split_at(cut.min(shuffled.len()));
        let mut rollups = Rollups::of(early);
        for (place, sums) in Rollups::of(late).0 {
            let row = rollups.0.entry(place).or_default();
            *row = row.merge(sums);
        }
        prop_assert_eq!(rollups, Rollups::of(&all));
    }
}

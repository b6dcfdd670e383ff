//! Stored byte-milliseconds of a period.
//!
//! Invariant: storage by file and by day each sum to the total. A file that is still stored counts up to
//! `as_of`, which makes the result provisional. A negative level counts as it is and is an anomaly.

use std::collections::BTreeMap;

use crate::{
    calendar::{day::Day, span::Window},
    metering::{
        anomaly::{Anomaly, AnomalyKind},
        level::{LevelChange, area_of, areas, level_at, segments},
    },
};

/// Stored byte-milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageUsage<F> {
    /// The total of the period.
    pub byte_ms: i128,
    /// Whether a stored file counts only up to `as_of`.
    pub provisional: bool,
    /// Anomalies by file.
    pub anomalies: Vec<Anomaly<F>>,
    /// Storage by day, for the requested days.
    pub days: Vec<(Day, i128)>,
    /// Storage by file, for files that were stored in the period.
    pub files: Vec<(F, i128)>,
}

/// Stored byte-milliseconds by file, and by the jobs that share each file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageByFile<F, J> {
    /// The total of the period.
    pub byte_ms: i128,
    /// Whether a stored file counts only up to `as_of`.
    pub provisional: bool,
    /// Anomalies by file.
    pub anomalies: Vec<Anomaly<F>>,
    /// Storage by file, for files that were stored in the period.
    pub files: Vec<FileUsage<F, J>>,
}

impl<F, J> Default for StorageByFile<F, J> {
    fn default() -> Self {
        Self { byte_ms: 0, provisional: false, anomalies: Vec::new(), files: Vec::new() }
    }
}

/// Stored byte-milliseconds of a file. The shares of jobs and the unattributed storage sum to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileUsage<F, J> {
    pub file: F,
    /// The total of the file.
    pub byte_ms: i128,
    /// The storage that is attributed to no job.
    pub unattributed_byte_ms: i128,
    /// The jobs that used the file and their shares, by id.
    pub jobs: Vec<(J, i128)>,
}

/// Sums up files. Changes are given once each, in any order; `days` are the days of the window's period.
#[must_use]
pub fn storage_usage<F: Ord + Clone>(
    changes: &BTreeMap<F, Vec<LevelChange>>,
    window: Window,
    days: &[Day],
) -> StorageUsage<F> {
    let counted = window.counted();
    let (mut anomalies, mut files, mut provisional) = (Vec::new(), Vec::new(), false);
    let mut all = Vec::new();
    for (file, changes) in changes {
        all.extend_from_slice(changes);
        provisional |= window.may_be_provisional() && level_at(changes, window.as_of) != 0;
        let segments = segments(changes, counted);
        if segments.iter().any(|segment| segment.level < 0) {
            anomalies.push(Anomaly { kind: AnomalyKind::NegativeLevel, id: file.clone() });
        }
        if segments.iter().any(|segment| segment.level != 0) {
            files.push((file.clone(), area_of(&segments)));
        }
    }
    let by_day = areas(&all, days.iter().map(|day| day.span.intersect(counted)));
    let byte_ms = files.iter().map(|(_, byte_ms)| byte_ms).sum();
    StorageUsage { byte_ms, provisional, anomalies, days: days.iter().copied().zip(by_day).collect(), files }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use epoch::Timestamp;
    use proptest::{collection, prelude::*};

    use super::storage_usage;
    use crate::{
        calendar::{
            day::{days, zone},
            span::{Span, Window},
        },
        metering::{
            anomaly::{Anomaly, AnomalyKind},
            level::{LevelChange, area},
        },
    };

    const DAY: i64 = 86_400_000;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn window(start: i64, end: i64, as_of: i64) -> Window {
        Window { period: Span::new(at(start), at(end)), as_of: at(as_of) }
    }

    fn files(changes: &[(&'static str, i64, i64)]) -> BTreeMap<&'static str, Vec<LevelChange>> {
        let mut files: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (file, millis, delta) in changes {
            files.entry(*file).or_default().push(LevelChange { at: at(*millis), delta: *delta });
        }
        files
    }

    fn utc(window: Window) -> Vec<crate::calendar::day::Day> {
        days(window.period, &zone("UTC").unwrap()).unwrap()
    }

    #[test]
    fn storage_is_provisional_only_while_counted_up_to_as_of() {
        let stored = files(&[("a", 10, 5)]);
        let deleted = files(&[("a", 10, 5), ("a", 30, -5)]);
        let cases = [
            (&stored, window(0, 100, 50), 200, true),
            (&stored, window(0, 100, 100), 450, true),
            (&stored, window(0, 100, 101), 450, false),
            (&deleted, window(0, 100, 29), 95, true),
            (&deleted, window(0, 100, 30), 100, false),
            (&deleted, window(0, 20, 25), 50, false),
            (&stored, window(0, 100, 9), 0, false),
        ];
        for (files, window, byte_ms, provisional) in cases {
            let usage = storage_usage(files, window, &utc(window));
            assert_eq!((usage.byte_ms, usage.provisional), (byte_ms, provisional), "{window:?}");
        }
    }

    #[test]
    fn negative_level_is_an_anomaly_where_it_counts() {
        let negative = files(&[("a", 10, 5), ("a", 20, -9), ("a", 30, 4), ("b", 0, 1)]);
        let usage = |window| storage_usage(&negative, window, &utc(window));
        let whole = usage(window(0, 100, 100));
        assert_eq!(whole.anomalies, [Anomaly { kind: AnomalyKind::NegativeLevel, id: "a" }]);
        assert_eq!(whole.files, [("a", 50 - 40), ("b", 100)]);
        assert_eq!(usage(window(0, 20, 100)).anomalies, []);
        assert_eq!(usage(window(30, 100, 100)).anomalies, []);
        assert_eq!(usage(window(30, 100, 100)).files, [("b", 70)]);
    }

    proptest! {
        #[test]
        fn files_and_days_sum_to_the_total(
            changes in collection::vec((0..4_usize, -DAY..5 * DAY, -1_000_000..1_000_000_000_i64), 0..40),
            start in 0..DAY, length in 0..4 * DAY, as_of in -DAY..6 * DAY,
        ) {
            let mut files: BTreeMap<usize, Vec<LevelChange>> = BTreeMap::new();
            for (file, millis, delta) in changes {
                files.entry(file).or_default().push(LevelChange { at: at(millis), delta });
            }
            let window = window(start, start + length, as_of);
            let usage = storage_usage(&files, window, &days(window.period, &zone("Asia/Kathmandu").unwrap()).unwrap());
            prop_assert_eq!(usage.days.iter().map(|(_, byte_ms)| byte_ms).sum::<i128>(), usage.byte_ms);
            let all: Vec<_> = files.values().flatten().copied().collect();
            prop_assert_eq!(area(&all, window.counted()), usage.byte_ms);
        }
    }
}

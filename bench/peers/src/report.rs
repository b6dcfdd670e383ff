//! Result tables and verdicts.

use std::collections::BTreeMap;

use crate::{
    measure::Sample,
    statistics::{median, range},
};

/// The index of a contestant and of a column.
type Key = (usize, usize);

/// The results of several rounds.
#[derive(Default)]
struct Cell {
    values: Vec<f64>,
    latencies: Vec<u32>,
    wal: Vec<f64>,
}

/// The results of one row: contestants by columns.
pub struct Table {
    title: String,
    /// The unit of the values, such as `commands/s`.
    unit: &'static str,
    higher_is_better: bool,
    columns: Vec<String>,
    names: Vec<(String, Side)>,
    cells: BTreeMap<Key, Cell>,
    notes: Vec<String>,
}

/// The role of a contestant in the verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Epoch with its defaults.
    Ours,
    /// Shown for reference, without a verdict.
    Reference,
    Peer,
}

/// Epoch's result against the best peer.
pub struct Verdict {
    row: String,
    column: String,
    /// The factor by which Epoch is better; below 1 it is worse.
    ratio: f64,
    ours: String,
    best: String,
}

impl Table {
    pub fn new(title: &str, unit: &'static str, higher_is_better: bool, columns: Vec<String>) -> Self {
        Self {
            title: title.to_owned(),
            unit,
            higher_is_better,
            columns,
            names: vec![],
            cells: BTreeMap::new(),
            notes: vec![],
        }
    }

    /// Returns the index of a contestant, and adds it if it is new.
    pub fn place(&mut self, name: &str, side: Side) -> usize {
        if let Some(place) = self.names.iter().position(|(known, _)| known == name) {
            return place;
        }
        self.names.push((name.to_owned(), side));
        self.names.len() - 1
    }

    pub fn sample(&mut self, place: usize, column: usize, sample: Sample) {
        let cell = self.cells.entry((place, column)).or_default();
        cell.values.push(sample.rate);
        cell.latencies.extend(sample.latencies);
        cell.wal.push(sample.wal);
    }

    pub fn value(&mut self, place: usize, column: usize, value: f64) {
        self.cells.entry((place, column)).or_default().values.push(value);
    }

    pub fn latencies(&mut self, place: usize, column: usize, latencies: Vec<u32>) {
        self.cells.entry((place, column)).or_default().latencies.extend(latencies);
    }

    pub fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// Prints the table and the verdict of each column.
    pub fn print(&self) -> Vec<Verdict> {
        println!("\n## {}\n", self.title);
        self.grid(&format!("{}, median (range)", self.unit), |cell| match cell.values.len() {
            0 => "—".to_owned(),
            1 => number(median(&cell.values)),
            _ => {
                let (low, high) = range(&cell.values);
                format!("{} ({}–{})", number(median(&cell.values)), number(low), number(high))
            }
        });
        if self.cells.values().any(|cell| cell.latencies.len() > 1) {
            self.grid("ms, p50 / p99", |cell| match cell.latencies.len() {
                0 => "—".to_owned(),
                _ => {
                    let mut sorted = cell.latencies.clone();
                    sorted.sort_unstable();
                    format!("{:.2} / {:.2}", percentile(&sorted, 0.50), percentile(&sorted, 0.99))
                }
            });
        }
        if self.cells.values().any(|cell| !cell.wal.is_empty()) {
            self.grid("WAL bytes each, median", |cell| match cell.wal.len() {
                0 => "—".to_owned(),
                _ => number(median(&cell.wal)),
            });
        }
        for note in &self.notes {
            println!("{note}");
        }
        let verdicts: Vec<Verdict> = (0..self.columns.len()).filter_map(|column| self.verdict(column)).collect();
        for verdict in &verdicts {
            println!("- {}: {}", verdict.column, verdict.words());
        }
        verdicts
    }

    fn grid(&self, head: &str, show: impl Fn(&Cell) -> String) {
        println!("| {head} | {} |", self.columns.join(" | "));
        println!("|---|{}", "---|".repeat(self.columns.len()));
        let empty = Cell::default();
        for (place, (name, _)) in self.names.iter().enumerate() {
            let cells: Vec<String> = (0..self.columns.len())
                .map(|column| show(self.cells.get(&(place, column)).unwrap_or(&empty)))
                .collect();
            println!("| {name} | {} |", cells.join(" | "));
        }
        println!();
    }

    fn verdict(&self, column: usize) -> Option<Verdict> {
        let value = |place: usize| {
            let cell = self.cells.get(&(place, column))?;
            (!cell.values.is_empty()).then(|| median(&cell.values))
        };
        let of = |side| self.names.iter().enumerate().filter(move |(_, (_, other))| *other == side);
        let ours = of(Side::Ours).find_map(|(place, _)| value(place))?;
        let peers = of(Side::Peer).filter_map(|(place, (name, _))| Some((value(place)?, name)));
        let better = |a: &f64, b: &f64| if self.higher_is_better { a.total_cmp(b) } else { b.total_cmp(a) };
        let (best, name) = peers.max_by(|(a, _), (b, _)| better(a, b))?;
        let ratio = if self.higher_is_better { ours / best } else { best / ours };
        Some(Verdict {
            row: self.title.clone(),
            column: self.columns[column].clone(),
            ratio,
            ours: format!("{} {}", number(ours), self.unit),
            best: format!("{name} {}", number(best)),
        })
    }
}

/// Smaller differences count as noise.
const NOISE: f64 = 0.05;

impl Verdict {
    fn place(&self) -> &'static str {
        if (self.ratio - 1.0).abs() <= NOISE {
            "level"
        } else if self.ratio > 1.0 {
            "first"
        } else {
            "**lost**"
        }
    }

    fn words(&self) -> String {
        format!("{}, {:.2}× the best peer ({}; {})", self.place(), self.ratio, self.ours, self.best)
    }
}

/// Prints all verdicts in one table.
pub fn summary(verdicts: &[Verdict]) {
    println!("\n## Summary: Epoch against the best peer of each row\n");
    println!("| row | column | ratio | Epoch | best peer | |");
    println!("|---|---|---|---|---|---|");
    for verdict in verdicts {
        let place = verdict.place();
        let Verdict { row, column, ratio, ours, best } = verdict;
        println!("| {row} | {column} | {ratio:.2} | {ours} | {best} | {place} |");
    }
}

/// Formats a value with three significant digits and thousands separators.
pub fn number(value: f64) -> String {
    if value < 10.0 {
        return format!("{value:.2}");
    }
    if value < 100.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().filter_map(|group| str::from_utf8(group).ok()).collect();
    groups.join(",")
}

/// Returns a percentile of sorted microseconds, in milliseconds.
fn percentile(sorted: &[u32], part: f64) -> f64 {
    let index = ((sorted.len() as f64 - 1.0).max(0.0) * part).round() as usize;
    sorted.get(index).map_or(0.0, |micros| f64::from(*micros) / 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(higher_is_better: bool) -> Table {
        let mut table = Table::new("1. a row", "things/s", higher_is_better, vec!["here".to_owned()]);
        for (name, side, values) in [
            ("ours", Side::Ours, [3.0, 9.0, 6.0]),
            ("a", Side::Peer, [2.0, 2.0, 2.0]),
            ("b", Side::Peer, [4.0, 3.0, 5.0]),
        ] {
            let place = table.place(name, side);
            for value in values {
                table.value(place, 0, value);
            }
        }
        let reference = table.place("the server", Side::Reference);
        table.value(reference, 0, 1_000.0);
        table
    }

    #[test]
    fn verdict_takes_the_highest_peer_if_higher_is_better() {
        let verdict = table(true).verdict(0).unwrap();
        assert!((verdict.ratio - 1.5).abs() < 1e-9, "{}", verdict.ratio);
        assert!(verdict.words().starts_with("first"), "{}", verdict.words());
    }

    #[test]
    fn verdict_takes_the_lowest_peer_if_lower_is_better() {
        let verdict = table(false).verdict(0).unwrap();
        assert!((verdict.ratio - 2.0 / 6.0).abs() < 1e-9, "{}", verdict.ratio);
        assert!(verdict.words().starts_with("**lost**"), "{}", verdict.words());
    }

    #[test]
    fn number_has_three_significant_digits() {
        assert_eq!([0.5, 12.34, 999.0, 1_234_567.0].map(number), ["0.50", "12.3", "999", "1,234,567"]);
    }
}

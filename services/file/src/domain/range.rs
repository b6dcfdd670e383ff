//! Which bytes of which parts a reader wants.
//!
//! The problem: readers ask for ranges of a file, but what is stored is parts.
//!
//! The invariant: the slices of a range, in order, are exactly the bytes of the range, whatever the parts' sizes; a range
//! that can't be read as one is ignored, as RFC 9110 (section 14.2) allows.

use std::ops::Range;

use uuid::Uuid;

use super::file::Part;

/// What a `Range` header asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// Everything: there is no header, or none to be followed.
    Whole,
    /// These bytes, at least one.
    Range(Range<u64>),
    /// Nothing that the file has.
    Unsatisfiable,
}

/// A piece of one part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// Which part.
    pub part_id: Uuid,
    /// Which of its bytes, counted from its own beginning; never empty.
    pub range: Range<u64>,
}

/// Reads a `Range` header for a file of `length` bytes. Several ranges at once are answered with the whole.
#[must_use]
pub fn wanted(header: &str, length: u64) -> Wanted {
    let Some((unit, range)) = header.split_once('=') else { return Wanted::Whole };
    let Some((first, last)) = range.trim().split_once('-') else { return Wanted::Whole };
    if !unit.eq_ignore_ascii_case("bytes") {
        return Wanted::Whole;
    }
    match (number(first), number(last)) {
        (Some(Number::Given(first)), Some(Number::Given(last))) if first > last => Wanted::Whole,
        (Some(Number::Given(first)), Some(last)) => {
            let end = match last {
                Number::Given(last) => last.saturating_add(1).min(length),
                Number::Left => length,
            };
            if first < length { Wanted::Range(first..end) } else { Wanted::Unsatisfiable }
        }
        (Some(Number::Left), Some(Number::Given(suffix))) => {
            let bytes = suffix.min(length);
            if bytes > 0 { Wanted::Range(length - bytes..length) } else { Wanted::Unsatisfiable }
        }
        _ => Wanted::Whole,
    }
}

/// The pieces of `parts`, which join without gap, that make up the bytes `wanted` of the file.
#[must_use]
pub fn slices(parts: &[Part], wanted: Range<u64>) -> Vec<Slice> {
    let first = parts.partition_point(|part| part.offset + part.bytes <= wanted.start);
    let mut slices = Vec::new();
    for part in parts.iter().skip(first) {
        if part.offset >= wanted.end {
            break;
        }
        let start = wanted.start.saturating_sub(part.offset);
        let end = part.bytes.min(wanted.end - part.offset);
        if start < end {
            slices.push(Slice { part_id: part.part_id, range: start..end });
        }
    }
    slices
}

enum Number {
    Left,
    Given(u64),
}

/// A number, or its absence; `None` for anything else. What is too large for a number is larger than any file.
fn number(text: &str) -> Option<Number> {
    if text.is_empty() {
        return Some(Number::Left);
    }
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| Number::Given(text.parse().unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::{Wanted, slices, wanted};
    use crate::domain::file::Part;

    #[test]
    fn reads_ranges() {
        let cases = [
            ("bytes=0-0", Wanted::Range(0..1)),
            ("bytes=2-5", Wanted::Range(2..6)),
            ("Bytes=2-5", Wanted::Range(2..6)),
            ("bytes=2-", Wanted::Range(2..10)),
            ("bytes=9-100", Wanted::Range(9..10)),
            ("bytes=9-99999999999999999999", Wanted::Range(9..10)),
            ("bytes=-3", Wanted::Range(7..10)),
            ("bytes=-100", Wanted::Range(0..10)),
            ("bytes=-99999999999999999999", Wanted::Range(0..10)),
            ("bytes=10-", Wanted::Unsatisfiable),
            ("bytes=10-12", Wanted::Unsatisfiable),
            ("bytes=99999999999999999999-", Wanted::Unsatisfiable),
            ("bytes=-0", Wanted::Unsatisfiable),
        ];
        for (header, expected) in cases {
            assert_eq!(wanted(header, 10), expected, "{header}");
        }
        let ignored =
            ["", "bytes", "bytes=", "bytes=-", "bytes=5-2", "bytes=a-b", "bytes=+1-2", "bytes=0-1,3-4", "lines=1-2"];
        for header in ignored {
            assert_eq!(wanted(header, 10), Wanted::Whole, "{header}");
        }
        assert_eq!(wanted("bytes=0-", 0), Wanted::Unsatisfiable);
        assert_eq!(wanted("bytes=-1", 0), Wanted::Unsatisfiable);
    }

    fn joined(sizes: &[u64]) -> Vec<Part> {
        let mut offset = 0;
        let mut parts = Vec::new();
        for (number, bytes) in sizes.iter().enumerate() {
            parts.push(Part { part_id: Uuid::from_u128(number as u128), offset, bytes: *bytes });
            offset += bytes;
        }
        parts
    }

    proptest! {
        #[test]
        fn slices_are_the_bytes_of_the_range(
            sizes in prop::collection::vec(1_u64..20, 0..12),
            first in 0_u64..150,
            last in prop::option::of(0_u64..150),
            suffix in any::<bool>(),
        ) {
            let parts = joined(&sizes);
            let length: u64 = sizes.iter().sum();
            let header = match (suffix, last) {
                (true, _) => format!("bytes=-{first}"),
                (false, Some(last)) => format!("bytes={first}-{last}"),
                (false, None) => format!("bytes={first}-"),
            };
            // Each byte of the file is told by its part and its place in it.
            let content: Vec<(Uuid, u64)> =
                parts.iter().flat_map(|part| (0..part.bytes).map(|place| (part.part_id, place))).collect();
            let expected: Vec<_> = match (suffix, last) {
                (true, _) => content.iter().rev().take(first as usize).rev().copied().collect(),
                (false, Some(last)) if last < first => content.clone(),
                (false, last) => {
                    let end = last.map_or(length, |last| last + 1).min(length);
                    (first..end).map(|place| content[place as usize]).collect()
                }
            };
            let range = match wanted(&header, length) {
                Wanted::Whole => 0..length,
                Wanted::Range(range) => range,
                Wanted::Unsatisfiable => {
                    prop_assert!(expected.is_empty(), "{}", header);
                    return Ok(());
                }
            };
            let slices = slices(&parts, range);
            prop_assert!(slices.iter().all(|slice| !slice.range.is_empty()));
            let read: Vec<_> =
                slices.iter().flat_map(|slice| slice.range.clone().map(|place| (slice.part_id, place))).collect();
            prop_assert_eq!(read, expected, "{}", header);
        }
    }
}

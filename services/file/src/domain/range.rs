//! Byte ranges of a file, and the slices of parts that hold them.
//!
//! The slices of a range, in order, are exactly the bytes of the range, for any sizes of parts. A malformed range is
//! ignored, as RFC 9110 (section 14.2) allows.

use std::ops::Range;

use uuid::Uuid;

use super::file::FilePart;

/// Range that a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestedRange {
    /// The whole file: the header is absent or ignored.
    Whole,
    /// At least one byte of the file.
    Bytes(Range<u64>),
    /// No byte of the file.
    Unsatisfiable,
}

/// Byte range within one part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartSlice {
    pub part_id: Uuid,
    /// Offsets from the start of the part; never empty.
    pub range: Range<u64>,
}

/// Parses a `Range` header for a file of `length` bytes. Several ranges at once count as the whole file.
#[must_use]
pub fn parse_range(header: &str, length: u64) -> RequestedRange {
    let Some((unit, range)) = header.split_once('=') else { return RequestedRange::Whole };
    let Some((first, last)) = range.trim().split_once('-') else { return RequestedRange::Whole };
    if !unit.eq_ignore_ascii_case("bytes") {
        return RequestedRange::Whole;
    }
    match (parse_bound(first), parse_bound(last)) {
        (Some(Bound::Offset(first)), Some(Bound::Offset(last))) if first > last => RequestedRange::Whole,
        (Some(Bound::Offset(first)), Some(last)) => {
            let end = match last {
                Bound::Offset(last) => last.saturating_add(1).min(length),
                Bound::Absent => length,
            };
            if first < length { RequestedRange::Bytes(first..end) } else { RequestedRange::Unsatisfiable }
        }
        (Some(Bound::Absent), Some(Bound::Offset(suffix))) => {
            let bytes = suffix.min(length);
            if bytes > 0 { RequestedRange::Bytes(length - bytes..length) } else { RequestedRange::Unsatisfiable }
        }
        _ => RequestedRange::Whole,
    }
}

/// Returns the slices that hold the bytes `range` of the file. `parts` must be ordered and gapless.
#[must_use]
pub fn part_slices(parts: &[FilePart], range: Range<u64>) -> Vec<PartSlice> {
    let first = parts.partition_point(|part| part.offset + part.bytes <= range.start);
    let mut slices = Vec::new();
    for part in parts.iter().skip(first) {
        if part.offset >= range.end {
            break;
        }
        let start = range.start.saturating_sub(part.offset);
        let end = part.bytes.min(range.end - part.offset);
        if start < end {
            slices.push(PartSlice { part_id: part.part_id, range: start..end });
        }
    }
    slices
}

enum Bound {
    Absent,
    Offset(u64),
}

/// Parses one bound; `None` for a malformed one. A number above 64 bits is larger than any file.
fn parse_bound(text: &str) -> Option<Bound> {
    if text.is_empty() {
        return Some(Bound::Absent);
    }
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| Bound::Offset(text.parse().unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::{RequestedRange, parse_range, part_slices};
    use crate::domain::file::FilePart;

    #[test]
    fn parse_range_accepts_single_byte_ranges() {
        let cases = [
            ("bytes=0-0", RequestedRange::Bytes(0..1)),
            ("bytes=2-5", RequestedRange::Bytes(2..6)),
            ("Bytes=2-5", RequestedRange::Bytes(2..6)),
            ("bytes=2-", RequestedRange::Bytes(2..10)),
            ("bytes=9-100", RequestedRange::Bytes(9..10)),
            ("bytes=9-99999999999999999999", RequestedRange::Bytes(9..10)),
            ("bytes=-3", RequestedRange::Bytes(7..10)),
            ("bytes=-100", RequestedRange::Bytes(0..10)),
            ("bytes=-99999999999999999999", RequestedRange::Bytes(0..10)),
            ("bytes=10-", RequestedRange::Unsatisfiable),
            ("bytes=10-12", RequestedRange::Unsatisfiable),
            ("bytes=99999999999999999999-", RequestedRange::Unsatisfiable),
            ("bytes=-0", RequestedRange::Unsatisfiable),
        ];
        for (header, expected) in cases {
            assert_eq!(parse_range(header, 10), expected, "{header}");
        }
        let ignored =
            ["", "bytes", "bytes=", "bytes=-", "bytes=5-2", "bytes=a-b", "bytes=+1-2", "bytes=0-1,3-4", "lines=1-2"];
        for header in ignored {
            assert_eq!(parse_range(header, 10), RequestedRange::Whole, "{header}");
        }
        assert_eq!(parse_range("bytes=0-", 0), RequestedRange::Unsatisfiable);
        assert_eq!(parse_range("bytes=-1", 0), RequestedRange::Unsatisfiable);
    }

    fn parts_of(sizes: &[u64]) -> Vec<FilePart> {
        let mut offset = 0;
        let mut parts = Vec::new();
        for (number, bytes) in sizes.iter().enumerate() {
            parts.push(FilePart { part_id: Uuid::from_u128(number as u128), offset, bytes: *bytes });
            offset += bytes;
        }
        parts
    }

    proptest! {
        #[test]
        fn slices_hold_exactly_the_range(
            sizes in prop::collection::vec(1_u64..20, 0..12),
            first in 0_u64..150,
            last in prop::option::of(0_u64..150),
            suffix in any::<bool>(),
        ) {
            let parts = parts_of(&sizes);
            let length: u64 = sizes.iter().sum();
            let header = match (suffix, last) {
                (true, _) => format!("bytes=-{first}"),
                (false, Some(last)) => format!("bytes={first}-{last}"),
                (false, None) => format!("bytes={first}-"),
            };
            // A part and an offset in it identify each byte of the file.
            let content: Vec<(Uuid, u64)> =
                parts.iter().flat_map(|part| (0..part.bytes).map(|offset| (part.part_id, offset))).collect();
            let expected: Vec<_> = match (suffix, last) {
                (true, _) => content.iter().rev().take(first as usize).rev().copied().collect(),
                (false, Some(last)) if last < first => content.clone(),
                (false, last) => {
                    let end = last.map_or(length, |last| last + 1).min(length);
                    (first..end).map(|offset| content[offset as usize]).collect()
                }
            };
            let range = match parse_range(&header, length) {
                RequestedRange::Whole => 0..length,
                RequestedRange::Bytes(range) => range,
                RequestedRange::Unsatisfiable => {
                    prop_assert!(expected.is_empty(), "{}", header);
                    return Ok(());
                }
            };
            let slices = part_slices(&parts, range);
            prop_assert!(slices.iter().all(|slice| !slice.range.is_empty()));
            let read: Vec<_> =
                slices.iter().flat_map(|slice| slice.range.clone().map(|offset| (slice.part_id, offset))).collect();
            prop_assert_eq!(read, expected, "{}", header);
        }
    }
}

//! A binary indexed tree of sums.
//!
//! Adding at an index, the sum before an index, and finding the index at which a sum is reached each cost
//! O(log n).

/// Numbers by index, initially 0.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    /// The node at 1-based index n holds the sum of as many numbers as the lowest set bit of n, up to its
    /// own.
    nodes: Vec<i128>,
}

impl Tree {
    pub(super) fn new(places: usize) -> Self {
        Self { nodes: vec![0; places] }
    }

    /// Adds to the number at an index.
    pub(super) fn add(&mut self, place: usize, number: i128) {
        let mut index = place + 1;
        while let Some(node) = self.nodes.get_mut(index - 1) {
            *node += number;
            index += lowest_bit(index);
        }
    }

    /// Returns the sum of the numbers before an index.
    pub(super) fn before(&self, place: usize) -> i128 {
        let (mut index, mut sum) = (place.min(self.nodes.len()), 0);
        while let Some(node) = index.checked_sub(1).and_then(|last| self.nodes.get(last)) {
            sum += node;
            index -= lowest_bit(index);
        }
        sum
    }

    /// Returns the first index with which the sum reaches a positive `sum`. Numbers must not be negative.
    pub(super) fn reaching(&self, sum: i128) -> usize {
        let mut remaining = sum;
        let mut index = 0;
        let mut step = self.nodes.len().checked_ilog2().map_or(0, |log| 1 << log);
        while step > 0 {
            if let Some(node) = self.nodes.get(index + step - 1)
                && *node < remaining
            {
                remaining -= node;
                index += step;
            }
            step /= 2;
        }
        index
    }
}

fn lowest_bit(index: usize) -> usize {
    index & index.wrapping_neg()
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::Tree;

    proptest! {
        #[test]
        fn tree_sums_match_a_list(numbers in vec(0..5_i128, 0..40), sum in 1..100_i128) {
            let mut tree = Tree::new(numbers.len());
            for (place, number) in numbers.iter().enumerate() {
                tree.add(place, *number);
            }
            for place in 0..=numbers.len() {
                prop_assert_eq!(tree.before(place), numbers[..place].iter().sum::<i128>());
            }
            let sums = |place: usize| numbers[..=place].iter().sum::<i128>();
            let expected = (0..numbers.len()).find(|place| sums(*place) >= sum).unwrap_or(numbers.len());
            prop_assert_eq!(tree.reaching(sum), expected);
        }
    }
}

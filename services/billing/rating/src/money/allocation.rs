//! Allocation of an amount to shares that sum to it, by largest remainder.
//!
//! An invoice line is rounded once, so shares of it that are rounded separately would not sum to it. Each
//! share first gets the whole units of its exact part. The units left go to the shares with the largest
//! remainders; ties go to the first. So each share differs from its exact part by less than one unit. Callers
//! pass weights in the order of ids, so that the result is stable.
//!
//! Example: 100 cents over the weights 1, 2, 4 have exact parts 14.29, 28.57 and 57.14. The whole units sum
//! to 99, and the cent left goes to the second share: 14, 29, 57.

use bigdecimal::num_bigint::BigInt;

/// Allocates an amount, in the smallest unit, in proportion to weights. If the weights sum to 0, all of it
/// goes to the first share.
#[must_use]
pub fn apportion(amount: &BigInt, weights: &[i128]) -> Vec<BigInt> {
    let zero = BigInt::from(0);
    let whole: BigInt = weights.iter().map(|weight| BigInt::from(*weight)).sum();
    if whole == zero {
        let first = |index| if index == 0 { amount.clone() } else { zero.clone() };
        return (0..weights.len()).map(first).collect();
    }
    let mut shares = Vec::with_capacity(weights.len());
    let mut remainders = Vec::with_capacity(weights.len());
    let mut left = amount.clone();
    for (index, weight) in weights.iter().enumerate() {
        let (share, remainder) = div_rem_floor(&(amount * *weight), &whole);
        left -= &share;
        shares.push(share);
        remainders.push((remainder, index));
    }
    remainders.sort_by(|(remainder, index), (other, other_index)| other.cmp(remainder).then(index.cmp(other_index)));
    for (_, index) in remainders {
        if left == zero {
            break;
        }
        if let Some(share) = shares.get_mut(index) {
            *share += 1;
            left -= 1;
        }
    }
    shares
}

/// Returns the quotient, rounded down, and the remainder in units of the divisor's magnitude, which is never
/// negative.
fn div_rem_floor(number: &BigInt, divisor: &BigInt) -> (BigInt, BigInt) {
    let zero = BigInt::from(0);
    let (number, divisor) = if *divisor < zero { (-number, -divisor) } else { (number.clone(), divisor.clone()) };
    let (quotient, remainder): (BigInt, BigInt) = (&number / &divisor, &number % &divisor);
    if remainder < zero { (quotient - 1, remainder + divisor) } else { (quotient, remainder) }
}

#[cfg(test)]
mod tests {
    use bigdecimal::num_bigint::BigInt;
    use proptest::{collection::vec, prelude::*};

    use super::apportion;

    fn shares(amount: i64, weights: &[i128]) -> Vec<i64> {
        apportion(&amount.into(), weights).iter().map(|share| share.try_into().unwrap()).collect()
    }

    #[test]
    fn units_left_go_to_largest_remainders_then_first() {
        assert_eq!(shares(100, &[1, 1, 1]), [34, 33, 33]);
        assert_eq!(shares(100, &[1, 2, 4]), [14, 29, 57]);
        assert_eq!(shares(1, &[1, 2, 2]), [0, 1, 0]);
        assert_eq!(shares(-100, &[1, 1, 1]), [-33, -33, -34]);
        assert_eq!(shares(7, &[0, 0]), [7, 0]);
        assert_eq!(shares(7, &[5, -5, 0]), [7, 0, 0]);
        assert_eq!(shares(7, &[]), [0; 0]);
    }

    fn weights() -> impl Strategy<Value = Vec<i128>> {
        let weight = prop_oneof![4 => 0..1_000_i128, 2 => 0..i128::from(i64::MAX) * 1_000_000, 1 => -1_000..0_i128];
        vec(weight, 1..40)
    }

    proptest! {
        #[test]
        fn shares_sum_to_the_amount_within_one_unit_each(amount in any::<i64>(), weights in weights()) {
            let amount = BigInt::from(amount);
            let shares = apportion(&amount, &weights);
            prop_assert_eq!(shares.len(), weights.len());
            prop_assert_eq!(shares.iter().sum::<BigInt>(), amount.clone());
            let whole: BigInt = weights.iter().map(|weight| BigInt::from(*weight)).sum();
            if whole != BigInt::from(0) {
                let size = BigInt::from(whole.magnitude().clone());
                for (share, weight) in shares.iter().zip(&weights) {
                    let off: BigInt = share * &whole - &amount * *weight;
                    prop_assert!(off < size && -off < size, "{share} for {weight} of {whole}");
                }
            }
        }

        #[test]
        fn larger_weight_never_has_a_smaller_share(amount in 0..i64::MAX, weights in vec(0..1_000_i128, 1..20)) {
            let shares = apportion(&amount.into(), &weights);
            for (share, weight) in shares.iter().zip(&weights) {
                for (other, other_weight) in shares.iter().zip(&weights) {
                    prop_assert!(weight <= other_weight || share >= other);
                }
            }
        }
    }
}

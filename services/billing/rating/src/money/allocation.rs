//! Shares of an amount that add up to it.
//!
//! The problem: an amount that was rounded once is to be told by job, and shares that are each rounded don't add up.
//!
//! The invariant: the shares sum to the amount exactly, and each is less than one smallest unit away from its exact part. Largest
//! remainder: every part gets what it has whole units of, and the units that are left go to the parts that lack least to one more;
//! of equals, to the first. Parts come in the order of their ids, so that the same parts always share alike.

use bigdecimal::num_bigint::BigInt;

/// Shares of an amount, in its smallest unit, in proportion to weights; all goes to the first where the weights come to nothing.
#[must_use]
pub fn apportion(amount: &BigInt, weights: &[i128]) -> Vec<BigInt> {
    let none = BigInt::from(0);
    let whole: BigInt = weights.iter().map(|weight| BigInt::from(*weight)).sum();
    if whole == none {
        let first = |index| if index == 0 { amount.clone() } else { none.clone() };
        return (0..weights.len()).map(first).collect();
    }
    let mut shares = Vec::with_capacity(weights.len());
    let mut rests = Vec::with_capacity(weights.len());
    let mut left = amount.clone();
    for (index, weight) in weights.iter().enumerate() {
        let (share, rest) = divided(&(amount * *weight), &whole);
        left -= &share;
        shares.push(share);
        rests.push((rest, index));
    }
    rests.sort_by(|(rest, index), (other, other_index)| other.cmp(rest).then(index.cmp(other_index)));
    for (_, index) in rests {
        if left == none {
            break;
        }
        if let Some(share) = shares.get_mut(index) {
            *share += 1;
            left -= 1;
        }
    }
    shares
}

/// The quotient, rounded down, and the rest in units of the divisor's size, which is never below 0.
fn divided(number: &BigInt, divisor: &BigInt) -> (BigInt, BigInt) {
    let none = BigInt::from(0);
    let (number, divisor) = if *divisor < none { (-number, -divisor) } else { (number.clone(), divisor.clone()) };
    let (quotient, rest): (BigInt, BigInt) = (&number / &divisor, &number % &divisor);
    if rest < none { (quotient - 1, rest + divisor) } else { (quotient, rest) }
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
    fn what_is_left_goes_to_the_largest_remainders_and_of_equals_to_the_first() {
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
        fn sum_to_the_amount_and_are_less_than_a_unit_off(amount in any::<i64>(), weights in weights()) {
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
        fn who_used_more_never_pays_less(amount in 0..i64::MAX, weights in vec(0..1_000_i128, 1..20)) {
            let shares = apportion(&amount.into(), &weights);
            for (share, weight) in shares.iter().zip(&weights) {
                for (other, other_weight) in shares.iter().zip(&weights) {
                    prop_assert!(weight <= other_weight || share >= other);
                }
            }
        }
    }
}

//! What a period comes to if it goes on as it did so far.
//!
//! The problem: plans and prices change within a period, so what is still to come isn't charged as what was used is.
//!
//! The invariant: what was used stays in the term it was used in. What remains of the period goes on at the pace of the period so far,
//! which is all that was used by the time gone, and falls into the terms that the remaining time lies in. It is cut to whole units only
//! where terms end, as the sum of all that comes before; so its parts sum to the whole of it, however many terms there are.

use epoch::Timestamp;

use crate::{
    calendar::span::{Span, Window},
    rating::{term::Term, usage_amounts::Metered},
};

/// The forecast is beyond all numbers that usage is counted in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the usage forecast for the period is more than can be counted")]
pub struct TooMuch;

/// What will have been used when a period ends, by its terms in order of time, of which `used` was used before `now`.
///
/// Nothing is forecast before any time is gone.
///
/// # Errors
/// [`TooMuch`].
pub fn forecast(period: Span, now: Timestamp, used: &[(Term, Metered)]) -> Result<Vec<(Term, Metered)>, TooMuch> {
    let gone = Window { period, as_of: now }.counted().millis();
    let so_far = used.iter().fold(Metered::default(), |sum, (_, metered)| sum.plus(*metered));
    let remaining = Span::new(now, period.end());
    let mut forecast = Vec::with_capacity(used.len());
    for (term, metered) in used {
        let ahead = term.span.intersect(remaining);
        let mut metered = *metered;
        if gone > 0 && !ahead.is_empty() {
            // How much comes before the term's part of what remains, and before its end.
            let [from, to] = [ahead.start(), ahead.end()].map(|at| Span::new(now, at).millis());
            let more = |so_far| continued(so_far, to, gone)?.checked_sub(continued(so_far, from, gone)?);
            let sum = |used: i128, so_far| more(so_far).and_then(|more| used.checked_add(more)).ok_or(TooMuch);
            metered =
                Metered { byte_ms: sum(metered.byte_ms, so_far.byte_ms)?, run_ms: sum(metered.run_ms, so_far.run_ms)? };
        }
        forecast.push((term.clone(), metered));
    }
    Ok(forecast)
}

/// What is used in a time at a pace: as much in `gone`, which is more than 0; cut to whole units.
fn continued(so_far: i128, time: i128, gone: i128) -> Option<i128> {
    // Divided first: the product may be more than what comes out.
    let whole = so_far.div_euclid(gone).checked_mul(time)?;
    whole.checked_add(so_far.rem_euclid(gone).checked_mul(time)?.div_euclid(gone))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use epoch::Timestamp;
    use proptest::{collection::vec, prelude::*};

    use super::{TooMuch, forecast};
    use crate::{
        calendar::span::Span,
        money::decimal::Decimal,
        pricing::{
            meter::{Meter, Unit},
            plan::{Plan, PlanVersion},
            price_model::{Charge, Model},
        },
        rating::{
            rate::{Adjustments, rate},
            term::Term,
            usage_amounts::Metered,
        },
    };

    const DAY: i64 = 86_400_000;

    fn span(start: i64, end: i64) -> Span {
        Span::new(Timestamp::from_millis(start), Timestamp::from_millis(end))
    }

    /// A part of a period in which a second of compute has this price, and what was run in it.
    fn term(start: i64, end: i64, price: u32, run_ms: i128) -> (Term, Metered) {
        let model = Model::Flat { free: Decimal::zero(), unit_price: price.into() };
        let charges = BTreeMap::from([(Meter::Compute, Charge { unit: Unit::Second, model })]);
        let key = PlanVersion { plan: "p".into(), version: price };
        let plan = Arc::new(Plan::new(key, "EUR".parse().unwrap(), charges));
        (Term { span: span(start, end), plan }, Metered { byte_ms: 0, run_ms })
    }

    /// What was and will be run by the end of a month of 30 days, and what that costs.
    fn by_the_end(day: i64, terms: &[(Term, Metered)]) -> (Vec<i128>, String) {
        let forecast = forecast(span(0, 30 * DAY), Timestamp::from_millis(day * DAY), terms).unwrap();
        let cost = rate(&forecast, &Adjustments::default()).unwrap().unwrap().total.to_string();
        (forecast.iter().map(|(_, metered)| metered.run_ms / 1_000).collect(), cost)
    }

    #[test]
    fn what_remains_is_charged_as_the_time_it_lies_in() {
        // A second a day: 1 each, and from the tenth day 10.
        let after = [term(0, 10 * DAY, 1, 10_000), term(10 * DAY, 30 * DAY, 10, 5_000)];
        assert_eq!(by_the_end(15, &after), (vec![10, 20], "210.00".into()));
        let before = [term(0, 10 * DAY, 1, 5_000), term(10 * DAY, 30 * DAY, 10, 0)];
        assert_eq!(by_the_end(5, &before), (vec![10, 20], "210.00".into()), "a change that is still to come");
        let at_once = [term(0, 10 * DAY, 1, 10_000), term(10 * DAY, 30 * DAY, 10, 0)];
        assert_eq!(by_the_end(10, &at_once), (vec![10, 20], "210.00".into()));
        assert_eq!(by_the_end(30, &after), (vec![10, 5], "60.00".into()), "nothing remains");
        assert_eq!(by_the_end(31, &after), (vec![10, 5], "60.00".into()));
    }

    #[test]
    fn nothing_is_forecast_before_time_is_gone_and_nothing_is_cut_down() {
        let of = |run_ms| [term(0, 30 * DAY, 1, run_ms)];
        assert_eq!(by_the_end(0, &of(0)), (vec![0], "0.00".into()));
        let first = |run_ms| forecast(span(0, 3), Timestamp::from_millis(1), &of(run_ms)).map(|of| of[0].1.run_ms);
        assert_eq!(first(i128::MAX / 3), Ok(i128::MAX / 3 * 3));
        assert_eq!(first(i128::MAX / 2), Err(TooMuch));
    }

    proptest! {
        /// Also below 0, which odd events make.
        #[test]
        fn usage_sums_to_what_was_used_and_what_remains(
            lengths in vec(1..90_000_000_i64, 1..6),
            used in vec((-1_000_000_000_000_000_000_000_i128..1_000_000_000_000_000_000_000, 0..10_000_000_000_i128), 6),
            gone in 1..1_000_i64,
        ) {
            let (mut start, mut terms) = (-70_000, Vec::new());
            for (length, (byte_ms, run_ms)) in lengths.iter().zip(&used) {
                let (term, _) = term(start, start + length, 1, 0);
                terms.push((term, Metered { byte_ms: *byte_ms, run_ms: *run_ms }));
                start += length;
            }
            let period = span(-70_000, start);
            let whole = i64::try_from(period.millis()).unwrap();
            let gone = (whole * gone / 1_000).max(1);
            let now = Timestamp::from_millis(-70_000 + gone);
            for (term, metered) in &mut terms {
                // What has not begun was not used.
                if term.span.start() >= now {
                    *metered = Metered::default();
                }
            }
            let total = |terms: &[(Term, Metered)]| terms.iter().fold(Metered::default(), |sum, (_, of)| sum.plus(*of));
            let forecast = forecast(period, now, &terms).unwrap();
            let (used, by_the_end) = (total(&terms), total(&forecast));
            let whole_by_gone = |used: i128| (used * i128::from(whole)).div_euclid(gone.into());
            prop_assert_eq!(by_the_end.byte_ms, whole_by_gone(used.byte_ms));
            prop_assert_eq!(by_the_end.run_ms, whole_by_gone(used.run_ms));
            for ((term, before), (_, after)) in terms.iter().zip(&forecast) {
                // What remains of a term has the pace of the whole, up to one unit.
                let ahead = term.span.intersect(Span::new(now, period.end())).millis();
                let more = used.byte_ms * ahead;
                let unit = (after.byte_ms - before.byte_ms) * i128::from(gone) - more;
                prop_assert!(unit.abs() < gone.into() && (ahead > 0 || before == after), "{unit}");
            }
            let end = super::forecast(period, period.end(), &terms).unwrap();
            prop_assert_eq!(total(&end), used);
        }
    }
}

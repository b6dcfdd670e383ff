//! Forecast of the usage at the end of a period.
//!
//! Usage so far stays in its term. The rest of the period continues at the pace of the period so far, which
//! is total usage divided by elapsed time, and falls in the terms of the remaining time, at their prices.
//! Amounts are truncated to whole units only at the ends of terms, as running totals. So the parts of the
//! forecast sum to its total, however many terms there are.
//!
//! Example: 10 seconds run in the first 10 of 30 days forecast 20 more. If a price applies from day 20, 10 of
//! them are charged at it.

use epoch::Timestamp;

use crate::{
    calendar::span::{Span, Window},
    rating::{term::Term, usage_amounts::UsageAmounts},
};

/// The forecast exceeds the range of amounts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the usage forecast exceeds the range of amounts")]
pub struct ForecastOverflow;

/// Forecasts the usage of each term at the end of a period, from the usage before `now`.
///
/// The forecast is the usage itself if no time has elapsed.
///
/// # Errors
/// [`ForecastOverflow`].
pub fn forecast(
    period: Span,
    now: Timestamp,
    usage: &[(Term, UsageAmounts)],
) -> Result<Vec<(Term, UsageAmounts)>, ForecastOverflow> {
    let elapsed = Window { period, as_of: now }.counted().millis();
    let so_far = usage.iter().fold(UsageAmounts::default(), |sum, (_, metered)| sum.plus(metered));
    let remaining = Span::new(now, period.end());
    let mut forecast = Vec::with_capacity(usage.len());
    for (term, amounts) in usage {
        let ahead = term.span.intersect(remaining);
        let mut amounts = amounts.clone();
        if elapsed > 0 && !ahead.is_empty() {
            // The remaining time before the term's part of it, and before the end of that part.
            let [from, to] = [ahead.start(), ahead.end()].map(|at| Span::new(now, at).millis());
            let more = |so_far| continued(so_far, to, elapsed)?.checked_sub(continued(so_far, from, elapsed)?);
            let sum = |usage: i128, so_far| usage.checked_add(more(so_far)?);
            amounts = amounts.try_zip(&so_far, sum).ok_or(ForecastOverflow)?;
        }
        forecast.push((term.clone(), amounts));
    }
    Ok(forecast)
}

/// Returns the usage in `time` at the pace of `so_far` in `elapsed`, which is above 0, truncated to whole units.
fn continued(so_far: i128, time: i128, elapsed: i128) -> Option<i128> {
    // Divide first: the product may overflow although the result does not.
    let whole = so_far.div_euclid(elapsed).checked_mul(time)?;
    whole.checked_add(so_far.rem_euclid(elapsed).checked_mul(time)?.div_euclid(elapsed))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use epoch::Timestamp;
    use proptest::{collection::vec, prelude::*};

    use super::{ForecastOverflow, forecast};
    use crate::{
        calendar::span::Span,
        money::decimal::Decimal,
        pricing::{
            meter::{Meter, Unit},
            plan::{Plan, PlanVersion},
            price_model::{Charge, PriceModel},
        },
        rating::{
            rate::{Adjustments, rate},
            term::Term,
            usage_amounts::UsageAmounts,
        },
    };

    const DAY: i64 = 86_400_000;

    fn span(start: i64, end: i64) -> Span {
        Span::new(Timestamp::from_millis(start), Timestamp::from_millis(end))
    }

    /// A term with this price of a second, and its run time.
    fn term(start: i64, end: i64, price: u32, run_ms: i128) -> (Term, UsageAmounts) {
        let model = PriceModel::Flat { free: Decimal::zero(), unit_price: price.into() };
        let charges = BTreeMap::from([(Meter::Compute, Charge { unit: Unit::Second, model })]);
        let key = PlanVersion { plan: "p".into(), version: price };
        let plan = Arc::new(Plan::new(key, "EUR".parse().unwrap(), charges));
        (Term { span: span(start, end), plan }, UsageAmounts::of(0, run_ms))
    }

    /// Forecasts the end of a month of 30 days: run seconds by term, and the total cost.
    fn by_the_end(day: i64, terms: &[(Term, UsageAmounts)]) -> (Vec<i128>, String) {
        let forecast = forecast(span(0, 30 * DAY), Timestamp::from_millis(day * DAY), terms).unwrap();
        let cost = rate(&forecast, &Adjustments::default()).unwrap().unwrap().total.to_string();
        (forecast.iter().map(|(_, amounts)| amounts.get(Meter::Compute) / 1_000).collect(), cost)
    }

    #[test]
    fn remaining_usage_is_charged_at_the_prices_of_its_term() {
        // A second a day: 1 each, and from the tenth day 10.
        let after = [term(0, 10 * DAY, 1, 10_000), term(10 * DAY, 30 * DAY, 10, 5_000)];
        assert_eq!(by_the_end(15, &after), (vec![10, 20], "210.00".into()));
        let before = [term(0, 10 * DAY, 1, 5_000), term(10 * DAY, 30 * DAY, 10, 0)];
        assert_eq!(by_the_end(5, &before), (vec![10, 20], "210.00".into()), "a price change in the future");
        let at_once = [term(0, 10 * DAY, 1, 10_000), term(10 * DAY, 30 * DAY, 10, 0)];
        assert_eq!(by_the_end(10, &at_once), (vec![10, 20], "210.00".into()));
        assert_eq!(by_the_end(30, &after), (vec![10, 5], "60.00".into()), "no time remains");
        assert_eq!(by_the_end(31, &after), (vec![10, 5], "60.00".into()));
    }

    #[test]
    fn forecast_is_exact_at_the_limits_of_its_range() {
        let of = |run_ms| [term(0, 30 * DAY, 1, run_ms)];
        assert_eq!(by_the_end(0, &of(0)), (vec![0], "0.00".into()));
        let first =
            |run_ms| forecast(span(0, 3), Timestamp::from_millis(1), &of(run_ms)).map(|of| of[0].1.get(Meter::Compute));
        assert_eq!(first(i128::MAX / 3), Ok(i128::MAX / 3 * 3));
        assert_eq!(first(i128::MAX / 2), Err(ForecastOverflow));
    }

    proptest! {
        /// Includes negative usage, which anomalies produce.
        #[test]
        fn forecast_sums_to_usage_and_remaining_usage(
            lengths in vec(1..90_000_000_i64, 1..6),
            usage in vec((-1_000_000_000_000_000_000_000_i128..1_000_000_000_000_000_000_000, 0..10_000_000_000_i128), 6),
            elapsed in 1..1_000_i64,
        ) {
            let (mut start, mut terms) = (-70_000, Vec::new());
            for (length, (byte_ms, run_ms)) in lengths.iter().zip(&usage) {
                let (term, _) = term(start, start + length, 1, 0);
                terms.push((term, UsageAmounts::of(*byte_ms, *run_ms)));
                start += length;
            }
            let period = span(-70_000, start);
            let whole = i64::try_from(period.millis()).unwrap();
            let elapsed = (whole * elapsed / 1_000).max(1);
            let now = Timestamp::from_millis(-70_000 + elapsed);
            for (term, metered) in &mut terms {
                // A term that has not started has no usage.
                if term.span.start() >= now {
                    *metered = UsageAmounts::default();
                }
            }
            let total = |terms: &[(Term, UsageAmounts)]| terms.iter().fold(UsageAmounts::default(), |sum, (_, of)| sum.plus(of));
            let forecast = forecast(period, now, &terms).unwrap();
            let (usage, by_the_end) = (total(&terms), total(&forecast));
            let whole_by_elapsed = |usage: i128| (usage * i128::from(whole)).div_euclid(elapsed.into());
            for meter in [Meter::Storage, Meter::Compute] {
                prop_assert_eq!(by_the_end.get(meter), whole_by_elapsed(usage.get(meter)));
            }
            for ((term, before), (_, after)) in terms.iter().zip(&forecast) {
                // The rest of a term follows the pace of the whole, within one unit.
                let ahead = term.span.intersect(Span::new(now, period.end())).millis();
                let more = usage.get(Meter::Storage) * ahead;
                let unit = (after.get(Meter::Storage) - before.get(Meter::Storage)) * i128::from(elapsed) - more;
                prop_assert!(unit.abs() < elapsed.into() && (ahead > 0 || before == after), "{unit}");
            }
            let end = super::forecast(period, period.end(), &terms).unwrap();
            prop_assert_eq!(total(&end), usage);
        }
    }
}

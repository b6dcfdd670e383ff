//! Which period is asked about, and as of when.
//!
//! The problem: "this month so far" means something else each time it is asked. The invariant: the answer repeats the question
//! with all its defaults filled in, so that asking for exactly that gives the same numbers, late events aside.

use epoch::Timestamp;
use http_kit::Problem;
use jiff::tz::TimeZone;
use rating::calendar::{
    day::{CalendarError, Day, days, start_of_month, zone},
    span::{Span, Window},
};
use serde::Deserialize;
use usage::queries::usage_query::UsageQuery;
use utoipa::IntoParams;
use uuid::Uuid;

use crate::http::instant::said;

/// The longest period that is answered, in milliseconds: 400 days of 24 hours.
pub const MAX_PERIOD_MS: i128 = 400 * 24 * 3_600_000;

/// The query string of usage and costs.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct QuestionQuery {
    /// The period's first instant, RFC 3339. If not said: the start of the UTC month in which the period ends (for a period
    /// that ends now, the current month; one that ends exactly at the start of a month has the month before).
    #[param(example = "2025-10-01T00:00:00Z")]
    pub(super) from: Option<String>,
    /// The first instant after the period, RFC 3339; at most 400 days after `from`. If not said: `as_of`.
    #[param(example = "2025-11-01T00:00:00Z")]
    pub(super) to: Option<String>,
    /// The IANA time zone whose days are listed; UTC if not said.
    #[param(example = "Europe/Madrid")]
    pub(super) time_zone: Option<String>,
    /// What happened later doesn't count, and what still runs or is still stored counts up to here; RFC 3339. If not
    /// said: now.
    #[param(example = "2025-10-26T12:00:00Z")]
    pub(super) as_of: Option<String>,
    /// The answer as it was known then: what was recorded later is left out; RFC 3339. If not said: all that is known.
    #[param(example = "2025-11-02T00:00:00Z")]
    pub(super) known_at: Option<String>,
}

/// What is asked, with nothing left open.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// The period, and as of when.
    pub window: Window,
    /// The time zone's name, as the IANA writes it.
    pub time_zone: String,
    /// The zone itself.
    pub zone: TimeZone,
    /// What was recorded later is not known yet; everything is known if it isn't said.
    pub known_at: Option<Timestamp>,
    /// The days of the period in that zone.
    pub days: Vec<Day>,
}

impl QuestionQuery {
    /// The question as of `now`, if it doesn't say.
    ///
    /// # Errors
    /// 400 for what isn't an instant; 422 for a period that is empty, too long or outside the calendar, or an unknown zone.
    pub fn question(self, now: Timestamp) -> Result<Question, Problem> {
        let as_of = said("as_of", self.as_of.as_deref())?.unwrap_or(now);
        let known_at = said("known_at", self.known_at.as_deref())?;
        let to = said("to", self.to.as_deref())?.unwrap_or(as_of);
        let from = match said("from", self.from.as_deref())? {
            Some(from) => from,
            None => start_of_month(to).map_err(unprocessable)?,
        };
        if from >= to {
            return Err(Problem::unprocessable(format!("the period from {from} to {to} is empty")));
        }
        let period = Span::new(from, to);
        if period.millis() > MAX_PERIOD_MS {
            return Err(Problem::unprocessable(format!("the period from {from} to {to} is longer than 400 days")));
        }
        let zone = match self.time_zone {
            Some(name) => zone(&name).map_err(unprocessable)?,
            None => TimeZone::UTC,
        };
        let time_zone = zone.iana_name().unwrap_or("UTC").to_owned();
        let days = days(period, &zone).map_err(unprocessable)?;
        Ok(Question { window: Window { period, as_of }, time_zone, zone, known_at, days })
    }
}

impl Question {
    /// The question to the read models about an organization.
    #[must_use]
    pub fn of(&self, organization: Uuid) -> UsageQuery {
        UsageQuery { organization, window: self.window, known_at: self.known_at }
    }
}

#[allow(clippy::needless_pass_by_value, reason = "it is what map_err gives")]
pub(super) fn unprocessable(error: CalendarError) -> Problem {
    Problem::unprocessable(error.to_string())
}

#[cfg(test)]
mod tests {
    use epoch::Timestamp;

    use super::{Question, QuestionQuery};
    use http_kit::Problem;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn asked(from: &str, to: &str, time_zone: &str, as_of: &str) -> Result<Question, Problem> {
        let said = |text: &str| (text != "-").then(|| text.to_owned());
        let query = QuestionQuery {
            from: said(from),
            to: said(to),
            time_zone: said(time_zone),
            as_of: said(as_of),
            known_at: None,
        };
        query.question(at("2025-10-26T12:00:00Z"))
    }

    #[test]
    fn what_is_not_said_is_the_current_month_up_to_now() {
        let question = asked("-", "-", "-", "-").unwrap();
        let period = question.window.period;
        assert_eq!((period.start(), period.end()), (at("2025-10-01T00:00:00Z"), at("2025-10-26T12:00:00Z")));
        assert_eq!((question.window.as_of, question.time_zone.as_str()), (at("2025-10-26T12:00:00Z"), "UTC"));
        assert_eq!(question.days.len(), 26);
    }

    #[test]
    fn defaults_follow_what_is_said() {
        let start = |to, as_of| asked("-", to, "-", as_of).unwrap().window.period.start();
        assert_eq!(start("-", "2025-09-15T00:00:00Z"), at("2025-09-01T00:00:00Z"));
        assert_eq!(start("2025-12-01T00:00:00Z", "-"), at("2025-11-01T00:00:00Z"));
        let question = asked("2025-10-26T00:00:00+02:00", "2025-10-27T00:00:00+01:00", "europe/madrid", "-").unwrap();
        assert_eq!((question.time_zone.as_str(), question.days.len()), ("Europe/Madrid", 1));
        assert_eq!(question.window.as_of, at("2025-10-26T12:00:00Z"));
    }

    #[test]
    fn nonsense_is_refused() {
        let day = "2025-10-26T00:00:00Z";
        let cases = [
            ("yesterday", "-", "-", "-", 400),
            ("-", "2025-10-26", "-", "-", 400),
            ("-", "-", "-", "", 400),
            ("-", "-", "-", "1761436800000", 400),
            ("2025-10-26T00:00:00", "-", "-", "-", 400),
            (day, day, "-", "-", 422),
            ("2025-10-27T00:00:00Z", day, "-", "-", 422),
            ("2024-09-21T00:00:00Z", day, "-", "-", 200),
            ("2024-09-20T23:59:59.999Z", day, "-", "-", 422),
            ("-", "-", "Europe/Nowhere", "-", 422),
            ("-", "-", "", "-", 422),
            ("9999-12-30T00:00:00Z", "9999-12-30T22:00:00Z", "-", "-", 422),
            ("-", "-9999-01-02T02:00:00Z", "-", "-", 400),
        ];
        for (from, to, time_zone, as_of, status) in cases {
            let answer = asked(from, to, time_zone, as_of);
            let seen = answer.as_ref().map_or_else(|problem| problem.status().as_u16(), |_| 200);
            assert_eq!(seen, status, "{from} {to} {time_zone} {as_of}: {answer:?}");
        }
    }
}

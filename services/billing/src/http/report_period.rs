//! The period of a report and its cutoff.
//!
//! "This month so far" changes with every request. So a response repeats the resolved period with all defaults filled in, and a
//! request for exactly that period returns the same numbers, except for late events.

use epoch::Timestamp;
use http_kit::Problem;
use jiff::tz::TimeZone;
use rating::calendar::{
    day::{CalendarError, Day, days, start_of_month, zone},
    span::{Span, Window},
};
use serde::{Deserialize, Serialize};
use usage::queries::usage_query::UsageQuery;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::http::instant::query_instant;

/// The longest period of a report, in milliseconds: 400 days of 24 hours.
pub(super) const MAX_PERIOD_MS: i128 = 400 * 24 * 3_600_000;

/// The query string of the usage and cost reports.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ReportPeriodQuery {
    /// First instant of the period (RFC 3339). Default: the start of the UTC month that contains the last instant of the
    /// period. Without any parameters, this is the current month.
    #[param(example = "2025-10-01T00:00:00Z")]
    pub(super) from: Option<String>,
    /// First instant after the period (RFC 3339, default: `as_of`), at most 400 days after `from`.
    #[param(example = "2025-11-01T00:00:00Z")]
    pub(super) to: Option<String>,
    /// IANA time zone of the listed days (default: UTC).
    #[param(example = "Europe/Madrid", default = "UTC")]
    pub(super) time_zone: Option<String>,
    /// Evaluates usage as of this instant (RFC 3339, default: now). Running jobs and stored files are counted up to it.
    #[param(example = "2025-10-26T12:00:00Z")]
    pub(super) as_of: Option<String>,
    /// Leaves out all events that were recorded after this instant (RFC 3339). Default: all recorded events count.
    #[param(example = "2025-11-02T00:00:00Z")]
    pub(super) known_at: Option<String>,
}

/// A resolved period, with all defaults filled in.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ReportPeriod {
    /// The period and its `as_of` instant.
    pub(super) window: Window,
    /// The IANA name of the time zone.
    pub(super) time_zone: String,
    pub(super) zone: TimeZone,
    /// The instant after which recorded events are left out, or `None` to count all.
    pub(super) known_at: Option<Timestamp>,
    /// The days of the period in the time zone.
    pub(super) days: Vec<Day>,
}

/// The resolved period in a response.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ReportPeriodResponse {
    /// First instant of the period.
    #[schema(value_type = String, format = DateTime)]
    from: String,
    /// First instant after the period.
    #[schema(value_type = String, format = DateTime)]
    to: String,
    /// The instant as of which usage is evaluated. Running jobs and stored files are counted up to it.
    #[schema(value_type = String, format = DateTime)]
    as_of: String,
    /// The instant after which recorded events are left out. Null when all events count.
    #[schema(value_type = Option<String>, format = DateTime)]
    known_at: Option<String>,
    /// IANA time zone of the listed days.
    #[schema(example = "Europe/Madrid")]
    time_zone: String,
}

impl From<&ReportPeriod> for ReportPeriodResponse {
    fn from(report: &ReportPeriod) -> Self {
        let Window { period, as_of } = report.window;
        Self {
            from: period.start().to_string(),
            to: period.end().to_string(),
            as_of: as_of.to_string(),
            known_at: report.known_at.map(|known_at| known_at.to_string()),
            time_zone: report.time_zone.clone(),
        }
    }
}

impl ReportPeriodQuery {
    /// Resolves the query at the instant `now`.
    ///
    /// # Errors
    /// 400 for text that is not an instant. 422 for an unknown time zone and for a period that is empty, too long or outside of
    /// the calendar.
    pub(super) fn resolve(self, now: Timestamp) -> Result<ReportPeriod, Problem> {
        let as_of = query_instant("as_of", self.as_of.as_deref())?.unwrap_or(now);
        let known_at = query_instant("known_at", self.known_at.as_deref())?;
        let to = query_instant("to", self.to.as_deref())?.unwrap_or(as_of);
        let from = match query_instant("from", self.from.as_deref())? {
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
        Ok(ReportPeriod { window: Window { period, as_of }, time_zone, zone, known_at, days })
    }
}

impl ReportPeriod {
    /// Returns the query of the read models for one organization.
    #[must_use]
    pub(super) fn usage_query(&self, organization: Uuid) -> UsageQuery {
        UsageQuery { organization, window: self.window, known_at: self.known_at }
    }
}

#[allow(clippy::needless_pass_by_value, reason = "the signature that map_err needs")]
pub(super) fn unprocessable(error: CalendarError) -> Problem {
    Problem::unprocessable(error.to_string())
}

#[cfg(test)]
mod tests {
    use epoch::Timestamp;

    use super::{ReportPeriod, ReportPeriodQuery};
    use http_kit::Problem;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn resolve(from: &str, to: &str, time_zone: &str, as_of: &str) -> Result<ReportPeriod, Problem> {
        let given = |text: &str| (text != "-").then(|| text.to_owned());
        let query = ReportPeriodQuery {
            from: given(from),
            to: given(to),
            time_zone: given(time_zone),
            as_of: given(as_of),
            known_at: None,
        };
        query.resolve(at("2025-10-26T12:00:00Z"))
    }

    #[test]
    fn default_period_is_current_month_until_now() {
        let report = resolve("-", "-", "-", "-").unwrap();
        let period = report.window.period;
        assert_eq!((period.start(), period.end()), (at("2025-10-01T00:00:00Z"), at("2025-10-26T12:00:00Z")));
        assert_eq!((report.window.as_of, report.time_zone.as_str()), (at("2025-10-26T12:00:00Z"), "UTC"));
        assert_eq!(report.days.len(), 26);
    }

    #[test]
    fn default_start_follows_end_of_period() {
        let start = |to, as_of| resolve("-", to, "-", as_of).unwrap().window.period.start();
        assert_eq!(start("-", "2025-09-15T00:00:00Z"), at("2025-09-01T00:00:00Z"));
        assert_eq!(start("2025-12-01T00:00:00Z", "-"), at("2025-11-01T00:00:00Z"));
        let report = resolve("2025-10-26T00:00:00+02:00", "2025-10-27T00:00:00+01:00", "europe/madrid", "-").unwrap();
        assert_eq!((report.time_zone.as_str(), report.days.len()), ("Europe/Madrid", 1));
        assert_eq!(report.window.as_of, at("2025-10-26T12:00:00Z"));
    }

    #[test]
    fn invalid_period_is_rejected() {
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
            let resolved = resolve(from, to, time_zone, as_of);
            let actual = resolved.as_ref().map_or_else(|problem| problem.status().as_u16(), |_| 200);
            assert_eq!(actual, status, "{from} {to} {time_zone} {as_of}: {resolved:?}");
        }
    }
}

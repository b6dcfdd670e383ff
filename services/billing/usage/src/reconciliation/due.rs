//! The events that billing must have applied by now.
//!
//! An event that billing has not applied may be on its way or lost; both look the same. Invariant: an event
//! counts as missing only when it is [much older](OVERTAKEN) than the newest file or job that billing has
//! received, since then later events have overtaken it, or when it is [very old](MAX_DELAY). So a lagging bus
//! causes no differences until then.

use std::time::Duration;

use epoch::{Timestamp, gate::Cursor, store::StoreError};
use epoch_postgres::last_applied_id;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::reconciliation::difference::{RowComparison, millis};

/// An event is missing when it is this much older than the newest file or job that billing has received.
pub(super) const OVERTAKEN: Duration = Duration::from_secs(600);
/// An event is missing after this time in any case.
pub(super) const MAX_DELAY: Duration = Duration::from_secs(86_400);

/// Returns the time up to which recorded events must be applied.
pub(super) async fn due(connection: &mut PgConnection, subscription: &str, aggregate: &str) -> Result<i64, StoreError> {
    let now = Timestamp::now().as_millis();
    let overtaken = millis(OVERTAKEN);
    let before = first_id_at(now.saturating_add(overtaken));
    let newest = last_applied_id(connection, subscription, aggregate, before).await?;
    let newest = newest.map_or(0, instant_of).min(now).saturating_sub(overtaken);
    Ok(newest.max(now.saturating_sub(millis(MAX_DELAY))))
}

/// Compares the version that billing has applied with the version it must have applied. `recorded` holds the
/// times the events were recorded. A parked stream is held back by its handler and reported elsewhere.
pub(super) fn versions(recorded: &[i64], cursor: Cursor, due: i64) -> RowComparison {
    let (applied, last) = (cursor.version.get(), recorded.len() as u64);
    let must_have = recorded.iter().rposition(|recorded_at| *recorded_at <= due).map_or(0, |index| index + 1);
    let expected = if applied > last {
        last
    } else if cursor.parked.is_some() {
        applied
    } else {
        applied.max(must_have as u64)
    };
    RowComparison { stored: format!("version {applied}"), recomputed: format!("version {expected}") }
}

/// Returns the smallest UUIDv7 of an instant in milliseconds.
fn first_id_at(at: i64) -> Uuid {
    Uuid::from_u128(u128::from(at.max(0).cast_unsigned()) << 80)
}

/// Returns the instant of a UUIDv7 in milliseconds.
fn instant_of(id: Uuid) -> i64 {
    i64::try_from(id.as_u128() >> 80).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::{first_id_at, instant_of};

    #[test]
    fn uuid_v7_contains_its_instant() {
        let (id, now) = (Uuid::now_v7(), epoch::Timestamp::now().as_millis());
        assert!((now - 1_000..=now).contains(&instant_of(id)));
        assert!(first_id_at(instant_of(id)) <= id && id < first_id_at(instant_of(id) + 1));
    }
}

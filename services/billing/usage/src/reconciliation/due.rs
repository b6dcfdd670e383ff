//! What billing must have had by now.
//!
//! The problem: an event that billing hasn't had may be on its way, or lost; from here both look the same.
//!
//! The invariant: an event is missed only when it is [older by far](OVERTAKEN) than the newest file or job that billing has heard of, for
//! what came after it on the bus is there; or [very old](AT_MOST). So a bus that is behind makes no difference, for as long as that.

use std::time::Duration;

use epoch::{Timestamp, gate::Cursor, store::StoreError};
use epoch_postgres::last_applied_id;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::reconciliation::difference::{Compared, millis};

/// An event that billing hasn't had must have come when it is so much older than the newest file or job that billing has heard of.
pub(super) const OVERTAKEN: Duration = Duration::from_secs(600);
/// It must have come after so long in any case.
pub(super) const AT_MOST: Duration = Duration::from_secs(86_400);

/// Up to when what was recorded must have come.
pub(super) async fn due(connection: &mut PgConnection, subscription: &str, aggregate: &str) -> Result<i64, StoreError> {
    let now = Timestamp::now().as_millis();
    let overtaken = millis(OVERTAKEN);
    let before = made_at(now.saturating_add(overtaken));
    let newest = last_applied_id(connection, subscription, aggregate, before).await?;
    let newest = newest.map_or(0, instant_of).min(now).saturating_sub(overtaken);
    Ok(newest.max(now.saturating_sub(millis(AT_MOST))))
}

/// How far billing is with a stream, whose events were recorded then, beside how far it must be by now. What is parked is held back by a
/// handler, and shown elsewhere.
pub(super) fn versions(recorded: &[i64], cursor: Cursor, due: i64) -> Compared {
    let (had, last) = (cursor.version.get(), recorded.len() as u64);
    let must_have = recorded.iter().rposition(|recorded_at| *recorded_at <= due).map_or(0, |index| index + 1);
    let wanted = match () {
        () if had > last => last,
        () if cursor.parked.is_some() => had,
        () => had.max(must_have as u64),
    };
    Compared { kept: format!("version {had}"), recomputed: format!("version {wanted}") }
}

/// The least id (UUIDv7) that is made at an instant.
fn made_at(at: i64) -> Uuid {
    Uuid::from_u128(u128::from(at.max(0).cast_unsigned()) << 80)
}

/// When an id (UUIDv7) was made.
fn instant_of(id: Uuid) -> i64 {
    i64::try_from(id.as_u128() >> 80).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::{instant_of, made_at};

    #[test]
    fn ids_tell_when_they_were_made() {
        let (id, now) = (Uuid::now_v7(), epoch::Timestamp::now().as_millis());
        assert!((now - 1_000..=now).contains(&instant_of(id)));
        assert!(made_at(instant_of(id)) <= id && id < made_at(instant_of(id) + 1));
    }
}

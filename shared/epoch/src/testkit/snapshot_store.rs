//! The conformance suite of snapshot stores.

use bytes::Bytes;
use uuid::Uuid;

use crate::{
    event::version::Version,
    store::{
        StoreError,
        snapshot::{Snapshot, SnapshotStore},
    },
};

/// Checks the invariants of a snapshot store.
///
/// # Errors
/// [`StoreError`] when the store fails.
///
/// # Panics
/// When an invariant is violated.
#[allow(clippy::panic, reason = "a test kit fails tests by panicking")]
pub async fn snapshot_store_conformance(store: &dyn SnapshotStore) -> Result<(), StoreError> {
    let mut ids = [Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7()];
    ids.sort_unstable();
    let [first, second, third] = ids;
    let snapshot = |id, version, schema, state: &'static [u8]| Snapshot {
        aggregate: "conformance",
        id,
        version: Version::new(version),
        schema,
        state: Bytes::from_static(state),
    };
    assert_eq!(store.newest("conformance", first).await?, None, "initially empty");
    store.save(&[snapshot(first, 7, 1, b"a"), snapshot(second, 1, u32::MAX, b"")]).await?;
    assert_eq!(store.newest("conformance", first).await?, Some(snapshot(first, 7, 1, b"a")), "stored unchanged");
    assert_eq!(store.newest("conformance", second).await?, Some(snapshot(second, 1, u32::MAX, b"")), "an empty state");
    assert_eq!(store.newest("another", first).await?, None, "another aggregate name");
    store.save(&[snapshot(first, 6, 2, b"b"), snapshot(second, 1, 2, b"c"), snapshot(third, 3, 1, b"d")]).await?;
    assert_eq!(store.newest("conformance", first).await?, Some(snapshot(first, 7, 1, b"a")), "an older one is dropped");
    assert_eq!(
        store.newest("conformance", second).await?,
        Some(snapshot(second, 1, 2, b"c")),
        "one of the same version replaces it"
    );
    store.save(&[snapshot(first, 8, 1, b"e")]).await?;
    assert_eq!(store.newest("conformance", first).await?, Some(snapshot(first, 8, 1, b"e")), "a newer one");
    let found = store.newest_with_tail("conformance", first).await?;
    assert_eq!(found.as_ref().map(|(newest, _)| newest), Some(&snapshot(first, 8, 1, b"e")), "read with its tail");
    assert!(found.is_some_and(|(_, tail)| tail.events.is_empty()), "no tail without events in the log");
    store.save(&[]).await?;
    for _ in 0..2 {
        store.discard("conformance", first).await?;
        assert_eq!(store.newest("conformance", first).await?, None, "discarded");
    }
    assert_eq!(store.newest("conformance", third).await?, Some(snapshot(third, 3, 1, b"d")), "other snapshots remain");
    Ok(())
}

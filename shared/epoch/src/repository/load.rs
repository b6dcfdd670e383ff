//! Loading: from the nearest kept state to the newest, or to the one of some moment.
//!
//! The problem: states are kept in a cache, in a state store and as snapshots, and each may be old, missing or wrong.
//!
//! The invariant: what is loaded is the fold of the log, whatever was kept. Kept states only save reading: one from outside this
//! process must be [proven](Fold::proving) by the log, and one that the store says can't be is thrown away.

use std::sync::Arc;

use futures::TryStreamExt;
use uuid::Uuid;

use super::repository::Repository;
use crate::{
    aggregate::Aggregate,
    bounds::Versions,
    cache::Loaded,
    fold::{Fold, Folded},
    id::AggregateId,
    snapshot::Since,
    store::{EventStore, StoreError},
    timestamp::Timestamp,
    version::Version,
};

/// A moment in an aggregate's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// Right after the event with this version.
    Version(Version),
    /// When the store had recorded everything up to this instant, and nothing later.
    Recorded(Timestamp),
}

/// Where a fold begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Nothing,
    Cache,
    StateStore,
    Snapshot,
}

/// A state that was kept outside this process.
struct Kept<A> {
    state: Loaded<A>,
    since: Since,
    origin: Origin,
}

impl<A: Aggregate, S: EventStore> Repository<A, S> {
    /// The aggregate as the store has it now.
    ///
    /// # Errors
    /// [`StoreError`] when the store can't be read or an event can't be decoded.
    pub async fn load(&self, id: impl AggregateId<A>) -> Result<Loaded<A>, StoreError> {
        let id = id.uuid();
        self.refresh(id, self.cached(id)).await
    }

    /// The aggregate as it was at some moment; when that lies ahead, as it is now.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub async fn state_at(&self, id: impl AggregateId<A>, at: At) -> Result<Loaded<A>, StoreError> {
        let id = id.uuid();
        match at {
            At::Version(version) => {
                let Kept { state, .. } = self.kept(id).await?;
                let state = if state.version > version { Loaded::default() } else { state };
                let up_to = Versions::all().up_to(version);
                let (folded, _) = self.fold(id, Fold::proving(id, state), Since::default(), up_to).await?;
                Ok(folded.loaded)
            }
            At::Recorded(instant) => {
                let mut loaded = Loaded::default();
                let mut events = self.store.stream(A::NAME, id, Version::ZERO);
                while let Some(event) = events.try_next().await? {
                    if event.recorded_at > instant {
                        break;
                    }
                    loaded.evolve_stored(&event.decode_all()?);
                }
                Ok(loaded)
            }
        }
    }

    /// Brings a state up to date by reading only what is newer.
    pub(crate) async fn refresh(&self, id: Uuid, loaded: Loaded<A>) -> Result<Loaded<A>, StoreError> {
        let (start, since, origin) = if loaded.version > Version::ZERO {
            (Fold::from(id, loaded), Since::default(), Origin::Cache)
        } else {
            let Kept { state, since, origin } = self.kept(id).await?;
            (Fold::proving(id, state), since, origin)
        };
        let (folded, agreed) = self.fold(id, start, since, Versions::all()).await?;
        self.keep(id, &folded, origin, agreed);
        Ok(folded.loaded)
    }

    /// The same after the store has said at which version it is.
    pub(crate) async fn catch_up(&self, id: Uuid, loaded: Loaded<A>, actual: Version) -> Result<Loaded<A>, StoreError> {
        if actual >= loaded.version {
            // One before it in line may have read what is new.
            return match self.cache.newest(id) {
                Some(cached) if cached.version >= actual => Ok(cached),
                _ => self.refresh(id, loaded).await,
            };
        }
        // The store was put back to an earlier time, and this process remembers what is no more.
        tracing::warn!(aggregate = A::NAME, %id, known = %loaded.version, %actual, "the store is behind the cache");
        self.cache.forget(id);
        self.refresh(id, Loaded::default()).await
    }

    /// The newest state that is kept outside this process.
    async fn kept(&self, id: Uuid) -> Result<Kept<A>, StoreError> {
        if let Some(states) = &self.states
            && let Some(state) = self.store.read_state(&**states, id).await?
        {
            return Ok(Kept { state, since: Since::default(), origin: Origin::StateStore });
        }
        if let Some((snapshots, _)) = &self.snapshots
            && let Some((state, since)) = snapshots.read(id).await
        {
            return Ok(Kept { state, since, origin: Origin::Snapshot });
        }
        Ok(Kept { state: Loaded::default(), since: Since::default(), origin: Origin::Nothing })
    }

    /// Folds the log on from `start`, or from the beginning when the log doesn't agree with `start`.
    async fn fold(
        &self,
        id: Uuid,
        start: Fold<A>,
        since: Since,
        within: Versions,
    ) -> Result<(Folded<A>, bool), StoreError> {
        let mut fold = start;
        let mut agreed = true;
        // Where it doesn't begin with the proof it is as if it hadn't been read.
        let proves = since.events.first().is_some_and(|first| first.version == fold.bounds().after.next());
        let mut read = proves && since.all;
        if proves {
            for event in &since.events {
                fold.take(event.recorded())?;
            }
        }
        loop {
            if !read {
                let bounds = Versions { after: fold.bounds().after, ..within };
                self.store.visit(A::NAME, id, bounds, &mut |event| fold.take(event)).await?;
            }
            if let Some(folded) = fold.finish() {
                if folded.read > 0 {
                    metrics::counter!("epoch_events_loaded_total", "aggregate" => A::NAME).increment(folded.read);
                }
                return Ok((folded, agreed));
            }
            tracing::warn!(aggregate = A::NAME, %id, "the log knows nothing of a kept state; folding everything");
            agreed = false;
            read = false;
            fold = Fold::from(id, Loaded::default());
        }
    }

    /// Keeps what was folded where it saves reading it again.
    fn keep(&self, id: Uuid, folded: &Folded<A>, origin: Origin, agreed: bool) {
        let Folded { loaded, read, tombstone } = folded;
        if origin == Origin::Cache && *read > 0 {
            self.cache.refreshed();
        }
        if loaded.version > Version::ZERO && (*read > 0 || origin != Origin::Cache) {
            self.cache.put(id, Loaded { state: Arc::clone(&loaded.state), version: loaded.version });
        }
        let Some((snapshots, policy)) = &self.snapshots else { return };
        if origin == Origin::Snapshot {
            snapshots.used::<A>(agreed);
            if !agreed || *tombstone {
                // Its data must not stay; a new one is made when there is enough to fold.
                snapshots.discard::<A>(id);
                return;
            }
        }
        snapshots.folded(*policy, id, loaded, *read);
    }
}

//! Typed ids of aggregates.
//!
//! Every id is a UUID; without types, a file's id passed as a job's id only shows as a missing job. An [`Id`] is bound
//! to one type of aggregate, and passing it for another type does not compile. Plain UUIDs are accepted unchecked.
//!
//! ```compile_fail
//! # use epoch::{Aggregate, Id, Repository, memory::MemoryStore};
//! async fn mixed_up<A: Aggregate, B: Aggregate>(jobs: &Repository<A, MemoryStore>, file: Id<B>) {
//!     let _ = jobs.load(file).await;
//! }
//! ```
//! ```
//! # use epoch::{Aggregate, Id, Repository, memory::MemoryStore};
//! async fn typed<A: Aggregate>(jobs: &Repository<A, MemoryStore>, job: Id<A>) {
//!     let _ = jobs.load(job).await;
//!     let _ = jobs.load(job.uuid()).await;
//! }
//! ```

use std::{
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    marker::PhantomData,
    str::FromStr,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// The id of an aggregate of type `A`. As text and as JSON it is the plain UUID.
pub struct Id<A> {
    uuid: Uuid,
    kind: PhantomData<fn() -> A>,
}

impl<A> Id<A> {
    /// Generates a new, unique id (UUIDv7).
    #[must_use]
    pub fn generate() -> Self {
        Self::new(Uuid::now_v7())
    }

    /// Creates the id with this UUID.
    #[must_use]
    pub const fn new(uuid: Uuid) -> Self {
        Self { uuid, kind: PhantomData }
    }

    /// Returns the UUID.
    #[must_use]
    pub const fn uuid(self) -> Uuid {
        self.uuid
    }
}

/// Identifies an aggregate of type `A`: an [`Id<A>`](Id) or a plain UUID.
pub trait AggregateId<A>: Copy + Send {
    /// Returns the UUID.
    fn uuid(self) -> Uuid;
}

impl<A> AggregateId<A> for Id<A> {
    fn uuid(self) -> Uuid {
        self.uuid
    }
}

impl<A> AggregateId<A> for Uuid {
    fn uuid(self) -> Uuid {
        self
    }
}

// Implemented by hand because derives would require the same traits of `A`.
impl<A> Clone for Id<A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A> Copy for Id<A> {}

impl<A> PartialEq for Id<A> {
    fn eq(&self, other: &Self) -> bool {
        self.uuid == other.uuid
    }
}

impl<A> Eq for Id<A> {}

impl<A> PartialOrd for Id<A> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<A> Ord for Id<A> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.uuid.cmp(&other.uuid)
    }
}

impl<A> Hash for Id<A> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.uuid.hash(state);
    }
}

impl<A> fmt::Debug for Id<A> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Id({})", self.uuid)
    }
}

impl<A> fmt::Display for Id<A> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uuid.fmt(formatter)
    }
}

/// The text is not a UUID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a UUID: {detail}")]
pub struct ParseIdError {
    detail: String,
}

impl<A> FromStr for Id<A> {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        Uuid::parse_str(text).map(Self::new).map_err(|error| ParseIdError { detail: error.to_string() })
    }
}

impl<A> From<Uuid> for Id<A> {
    fn from(uuid: Uuid) -> Self {
        Self::new(uuid)
    }
}

impl<A> From<Id<A>> for Uuid {
    fn from(id: Id<A>) -> Self {
        id.uuid
    }
}

impl<A> Serialize for Id<A> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.uuid.serialize(serializer)
    }
}

impl<'de, A> Deserialize<'de> for Id<A> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Uuid::deserialize(deserializer).map(Self::new)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashSet};

    use proptest::prelude::*;

    use super::*;

    /// Implements no trait, to show that `Id` requires none.
    struct Job;

    proptest! {
        #[test]
        fn id_formats_compares_and_serializes_as_uuid(number in any::<u128>(), other in any::<u128>()) {
            let (uuid, id) = (Uuid::from_u128(number), Id::<Job>::new(Uuid::from_u128(number)));
            prop_assert_eq!(id.to_string(), uuid.to_string());
            prop_assert_eq!(id.to_string().parse(), Ok(id));
            prop_assert_eq!(serde_json::to_string(&id).unwrap(), format!("\"{uuid}\""));
            prop_assert_eq!(serde_json::from_str::<Id<Job>>(&format!("\"{uuid}\"")).unwrap(), id);
            prop_assert_eq!(Uuid::from(id), uuid);
            let another = Id::<Job>::from(Uuid::from_u128(other));
            prop_assert_eq!(id.cmp(&another), number.cmp(&other));
            prop_assert_eq!(HashSet::from([id, another, id]).len(), BTreeSet::from([number, other]).len());
        }
    }

    #[test]
    fn invalid_text_is_rejected() {
        for text in ["", "job", "00000000-0000-0000-0000-00000000000g"] {
            assert!(text.parse::<Id<Job>>().is_err(), "{text}");
        }
    }
}

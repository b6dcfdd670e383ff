//! Snapshots: states stored apart from the log, so that long streams are not folded from the beginning.
//!
//! Invariants:
//! - a snapshot is never an authority: it is written after its events are committed, may be late, lost or unreadable,
//!   and the log must contain its version before it is used;
//! - commands never wait for snapshots: requests wait in a bounded queue, one task writes them, and a full queue drops
//!   and counts further requests.
//!
//! Metrics: `epoch_snapshots_total` (`aggregate`, `result`: `queued`, `shed`, `written`, `discarded`, `failed`) and
//! `epoch_snapshot_reads_total` (`aggregate`, `result`: `used`, `none`, `unreadable`, `unfounded`, `failed`).

mod policy;
mod snapshot_store;
mod writer;

pub use policy::SnapshotPolicy;
pub use snapshot_store::{MAX_SNAPSHOT_BYTES, Snapshot, SnapshotStore, StreamTail, TailEvent};
pub use writer::{SnapshotWriter, Snapshots};

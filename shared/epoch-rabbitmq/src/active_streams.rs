//! Balancing of a topic's streams among the processes of a group.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

/// The number of a topic's streams that this process reads.
pub(crate) type ActiveStreams = Arc<AtomicU32>;

/// Counts one stream as active until it is dropped or yielded.
pub(crate) struct ActiveStream {
    streams: ActiveStreams,
    counted: bool,
}

impl ActiveStream {
    pub(crate) fn new(streams: &ActiveStreams) -> Self {
        streams.fetch_add(1, Ordering::SeqCst);
        Self { streams: Arc::clone(streams), counted: true }
    }

    /// Returns whether this stream has to be left to another process, because this one reads more than `share` streams.
    ///
    /// When several streams ask at once, only the surplus yields: each one that yields is no longer counted.
    pub(crate) fn yields(&mut self, share: u32) -> bool {
        let decrement = |active: u32| (active > share).then(|| active - 1);
        if self.counted && self.streams.fetch_update(Ordering::SeqCst, Ordering::SeqCst, decrement).is_ok() {
            self.counted = false;
        }
        !self.counted
    }
}

impl Drop for ActiveStream {
    fn drop(&mut self) {
        if self.counted {
            self.streams.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

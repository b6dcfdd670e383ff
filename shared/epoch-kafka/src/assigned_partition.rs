//! The partitions a consumer holds now.
//!
//! The problem: a slow partition must neither stop the polling of the others nor fill the memory, and a partition must not be
//! given up while a batch of it is half done.
//!
//! The invariant: every event polled for a held partition is either in its task's hands, in its bounded queue, or kept here, in
//! offset order; while anything is kept here the partition is paused. A revoked partition is released only when its task has
//! ended, and only what went through the gate is committed.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use epoch::handler::Subscription;
use epoch_registry::Framing;
use rdkafka::{TopicPartitionList, error::KafkaResult, topic_partition_list::Offset};
use tokio::{runtime::Handle, sync::mpsc::error::TrySendError, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    error::Error,
    partition_task::{Item, PartitionTask, Progress, QUEUE, UNKNOWN},
};

/// How long to wait for a task that was aborted.
const ABORT: Duration = Duration::from_secs(1);

/// One held partition.
pub(crate) struct Held {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    queue: tokio::sync::mpsc::Sender<Item>,
    /// What the queue had no room for.
    kept: VecDeque<Item>,
    paused: bool,
    /// The offset after the last event polled.
    polled: i64,
    /// What was committed last.
    committed: i64,
    progress: Arc<Progress>,
    stop: CancellationToken,
    task: JoinHandle<()>,
    ended: mpsc::Receiver<Infallible>,
}

impl Held {
    pub(crate) fn start(
        subscription: &Arc<dyn Subscription>,
        framing: &Option<Arc<Framing>>,
        runtime: &Handle,
        topic: &str,
        partition: i32,
    ) -> Self {
        let (queue, items) = tokio::sync::mpsc::channel(QUEUE);
        let (running, ended) = mpsc::sync_channel(0);
        let (topic, progress, stop) = (Arc::<str>::from(topic), Arc::new(Progress::new()), CancellationToken::new());
        let task = PartitionTask {
            subscription: Arc::clone(subscription),
            framing: framing.clone(),
            topic: Arc::clone(&topic),
            partition,
            items,
            progress: Arc::clone(&progress),
            stop: stop.clone(),
            _ended: running,
        };
        let task = runtime.spawn(task.run());
        let kept = VecDeque::new();
        let (paused, polled, committed) = (false, UNKNOWN, UNKNOWN);
        Self { topic, partition, queue, kept, paused, polled, committed, progress, stop, task, ended }
    }

    pub(crate) fn is(&self, topic: &str, partition: i32) -> bool {
        self.partition == partition && *self.topic == *topic
    }

    /// Whether an offset is before the end of what was polled: other events stand there now.
    pub(crate) fn has_passed(&self, offset: i64) -> bool {
        offset < self.polled
    }

    /// Hands an item over, or keeps it.
    pub(crate) fn accept(&mut self, item: Item) -> Result<(), Error> {
        if self.unfinished() == 0 {
            // It had nothing to do so far: its silence begins now.
            self.progress.begin(item.offset);
        }
        self.polled = item.offset + 1;
        self.kept.push_back(item);
        self.hand_over()
    }

    /// Moves what is kept into the queue as far as there is room.
    pub(crate) fn hand_over(&mut self) -> Result<(), Error> {
        while let Some(item) = self.kept.pop_front() {
            match self.queue.try_send(item) {
                Ok(()) => {}
                Err(TrySendError::Full(item)) => {
                    self.kept.push_front(item);
                    break;
                }
                Err(TrySendError::Closed(_)) => return Err(self.died()),
            }
        }
        Ok(())
    }

    /// Whether it should be paused (`Some(true)`) or resumed (`Some(false)`) now.
    pub(crate) fn wants(&self) -> Option<bool> {
        if self.paused {
            // What librdkafka had read ahead is thrown away at every pause: not for a handful of events.
            (self.kept.is_empty() && self.queue.capacity() >= QUEUE / 2).then_some(false)
        } else {
            (!self.kept.is_empty()).then_some(true)
        }
    }

    pub(crate) fn set_paused(&mut self, paused: bool) {
        self.paused = paused;
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.paused
    }

    /// An error when the task has ended by itself.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.task.is_finished() { Err(self.died()) } else { Ok(()) }
    }

    fn died(&self) -> Error {
        Error::Died { topic: self.topic.to_string(), partition: self.partition, offset: self.position() }
    }

    /// The offset of the first event that hasn't been through the gate.
    pub(crate) fn position(&self) -> i64 {
        self.progress.position()
    }

    /// How many events were polled and haven't been through the gate.
    pub(crate) fn unfinished(&self) -> i64 {
        self.polled - self.position()
    }

    /// How long it has had events and shown no sign of life.
    pub(crate) fn stuck_for(&self) -> Duration {
        if self.unfinished() == 0 { Duration::ZERO } else { self.progress.silent() }
    }

    /// The offset to commit, when it isn't committed yet. It goes back as well: when the broker has lost the topic's tail, other
    /// events will stand at the offsets that were committed, and whoever began there would leave them out.
    pub(crate) fn take_commit(&mut self) -> Option<i64> {
        let position = self.position();
        (position != UNKNOWN && position != self.committed).then(|| {
            self.committed = position;
            position
        })
    }

    /// The commit went wrong.
    pub(crate) fn not_committed(&mut self) {
        self.committed = UNKNOWN;
    }

    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits for the task, which was told to stop, and aborts it after `deadline`: its transaction is rolled back.
    pub(crate) fn join(&self, deadline: Instant) {
        let ended = |limit| self.ended.recv_timeout(limit) != Err(RecvTimeoutError::Timeout);
        if ended(deadline.saturating_duration_since(Instant::now())) {
            return;
        }
        self.task.abort();
        let stopped = ended(ABORT);
        tracing::error!(topic = &*self.topic, partition = self.partition, stopped, "the batch in hand was aborted");
    }
}

/// The partitions as librdkafka wants them named.
pub(crate) fn names<'a>(partitions: impl IntoIterator<Item = &'a Held>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for held in partitions {
        list.add_partition(&held.topic, held.partition);
    }
    list
}

/// What there is to commit.
pub(crate) fn commits<'a>(partitions: impl IntoIterator<Item = &'a mut Held>) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for held in partitions {
        if let Some(position) = held.take_commit() {
            list.add_partition_offset(&held.topic, held.partition, Offset::Offset(position))?;
        }
    }
    Ok(list)
}

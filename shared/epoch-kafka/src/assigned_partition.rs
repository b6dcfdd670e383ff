//! A partition that is assigned to this consumer.
//!
//! Every polled record is with the partition's task, in its bounded queue, or in the overflow, in offset order. The partition is
//! paused while the overflow holds records, so a slow partition neither blocks polling nor fills the memory.
//!
//! A revoked partition is released after its task has ended. Only the position of accepted events is committed.

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
use epoch_registry::{EventDelivery, Framing};
use rdkafka::{TopicPartitionList, error::KafkaResult, topic_partition_list::Offset};
use tokio::{runtime::Handle, sync::mpsc::error::TrySendError, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    error::Error,
    partition_task::{PartitionTask, PolledRecord, QUEUE},
    progress::{Progress, UNKNOWN},
};

/// The time limit for an aborted task to end.
const ABORT: Duration = Duration::from_secs(1);

/// An assigned partition and its task.
pub(crate) struct AssignedPartition {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    queue: tokio::sync::mpsc::Sender<PolledRecord>,
    /// Polled records that did not fit into the queue.
    overflow: VecDeque<PolledRecord>,
    paused: bool,
    /// The offset after the last polled record.
    polled: i64,
    /// The last committed position.
    committed: i64,
    progress: Arc<Progress>,
    stop: CancellationToken,
    task: JoinHandle<()>,
    ended: mpsc::Receiver<Infallible>,
}

impl AssignedPartition {
    pub(crate) fn start(
        subscription: &Arc<dyn Subscription>,
        framing: &Option<Arc<Framing>>,
        runtime: &Handle,
        topic: &str,
        partition: i32,
    ) -> Self {
        let (queue, records) = tokio::sync::mpsc::channel(QUEUE);
        let (running, ended) = mpsc::sync_channel(0);
        let (topic, progress, stop) = (Arc::<str>::from(topic), Arc::new(Progress::new()), CancellationToken::new());
        let task = PartitionTask {
            delivery: EventDelivery {
                subscription: Arc::clone(subscription),
                framing: framing.clone(),
                stop: stop.clone(),
            },
            topic: Arc::clone(&topic),
            partition,
            queue: records,
            progress: Arc::clone(&progress),
            _ended: running,
        };
        let task = runtime.spawn(task.run());
        let overflow = VecDeque::new();
        let (paused, polled, committed) = (false, UNKNOWN, UNKNOWN);
        Self { topic, partition, queue, overflow, paused, polled, committed, progress, stop, task, ended }
    }

    pub(crate) fn is(&self, topic: &str, partition: i32) -> bool {
        self.partition == partition && *self.topic == *topic
    }

    /// Returns whether this offset was polled before, which means that the broker lost records and reuses their offsets.
    pub(crate) fn has_polled(&self, offset: i64) -> bool {
        offset < self.polled
    }

    /// Queues a polled record for the task.
    pub(crate) fn enqueue(&mut self, record: PolledRecord) -> Result<(), Error> {
        if self.unfinished() == 0 {
            // The task was idle, so the time until it counts as stuck starts now.
            self.progress.set_position(record.offset);
        }
        self.polled = record.offset + 1;
        self.overflow.push_back(record);
        self.fill_queue()
    }

    /// Moves records from the overflow into the queue until the queue is full.
    pub(crate) fn fill_queue(&mut self) -> Result<(), Error> {
        while let Some(record) = self.overflow.pop_front() {
            match self.queue.try_send(record) {
                Ok(()) => {}
                Err(TrySendError::Full(record)) => {
                    self.overflow.push_front(record);
                    break;
                }
                Err(TrySendError::Closed(_)) => return Err(self.task_ended()),
            }
        }
        Ok(())
    }

    /// Returns `Some(true)` when the partition has to be paused now, and `Some(false)` when it has to be resumed.
    pub(crate) fn pause_change(&self) -> Option<bool> {
        if self.paused {
            // Each pause discards the records that librdkafka has prefetched, so resume only when half of the queue is free.
            (self.overflow.is_empty() && self.queue.capacity() >= QUEUE / 2).then_some(false)
        } else {
            (!self.overflow.is_empty()).then_some(true)
        }
    }

    pub(crate) fn set_paused(&mut self, paused: bool) {
        self.paused = paused;
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.paused
    }

    /// Returns an error when the task ended without being stopped.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.task.is_finished() { Err(self.task_ended()) } else { Ok(()) }
    }

    fn task_ended(&self) -> Error {
        Error::TaskEnded { topic: self.topic.to_string(), partition: self.partition, offset: self.position() }
    }

    /// Returns the offset of the first event that the subscription has not accepted.
    pub(crate) fn position(&self) -> i64 {
        self.progress.position()
    }

    /// Returns the number of polled records that are not processed yet.
    pub(crate) fn unfinished(&self) -> i64 {
        self.polled - self.position()
    }

    /// Returns the time without activity while there are records to process.
    pub(crate) fn stuck_for(&self) -> Duration {
        if self.unfinished() == 0 { Duration::ZERO } else { self.progress.idle_for() }
    }

    /// Returns the offset to commit, or `None` if it is committed already.
    ///
    /// The offset may also decrease. When the broker has lost the end of the topic, new records reuse the committed offsets, and a
    /// consumer that started at the old offset would miss them.
    pub(crate) fn take_commit(&mut self) -> Option<i64> {
        let position = self.position();
        (position != UNKNOWN && position != self.committed).then(|| {
            self.committed = position;
            position
        })
    }

    /// Commits the position again, because the last commit failed.
    pub(crate) fn commit_failed(&mut self) {
        self.committed = UNKNOWN;
    }

    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits for the stopped task and aborts it at `deadline`, which rolls its transaction back.
    pub(crate) fn join(&self, deadline: Instant) {
        let ends_within = |limit| self.ended.recv_timeout(limit) != Err(RecvTimeoutError::Timeout);
        if ends_within(deadline.saturating_duration_since(Instant::now())) {
            return;
        }
        self.task.abort();
        let stopped = ends_within(ABORT);
        tracing::error!(
            topic = &*self.topic,
            partition = self.partition,
            stopped,
            "batch aborted after the drain timeout"
        );
    }
}

/// Converts the partitions into librdkafka's list.
pub(crate) fn partition_list<'a>(partitions: impl IntoIterator<Item = &'a AssignedPartition>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for assigned in partitions {
        list.add_partition(&assigned.topic, assigned.partition);
    }
    list
}

/// Takes the offsets that are not committed yet.
pub(crate) fn take_commits<'a>(
    partitions: impl IntoIterator<Item = &'a mut AssignedPartition>,
) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for assigned in partitions {
        if let Some(position) = assigned.take_commit() {
            list.add_partition_offset(&assigned.topic, assigned.partition, Offset::Offset(position))?;
        }
    }
    Ok(list)
}

//! Given-when-then tests of sagas.
//!
//! The kit drives the same [`Run`] as a durable implementation, without a store.

use std::collections::VecDeque;

use uuid::Uuid;

use crate::{
    saga::{InstanceOf, Phase, Run, RunError, Saga, Work},
    time::{
        clock::{Clock, ManualClock},
        timestamp::Timestamp,
    },
};

/// A consequence of an input.
#[derive(Debug, Clone, PartialEq)]
pub enum SagaStep<C, F, T> {
    /// An aggregate executed a command.
    Commanded(C),
    /// An aggregate rejected a command.
    Refused(C),
    /// An effect was put into the outbox.
    Sent(F),
    /// A timer was set.
    Set(T, Timestamp),
    /// A timer was cancelled.
    Cancelled(T),
    /// The process completed.
    Completed,
}

type StepOf<S> = SagaStep<<S as Saga>::Command, <S as Saga>::Effect, <S as Saga>::Timer>;
type Aggregates<S> = Box<dyn FnMut(&<S as Saga>::Command) -> Result<(), <S as Saga>::Refusal> + Send>;

/// An instance of a saga with its aggregates, outbox, timers and clock.
pub struct GivenSaga<S: Saga> {
    saga: S,
    instance: InstanceOf<S>,
    aggregates: Aggregates<S>,
    outbox: VecDeque<(Uuid, S::Effect)>,
    timers: Vec<(S::Timer, Timestamp)>,
    clock: ManualClock,
    inputs: u128,
}

/// The saga's reaction to an input.
pub struct SagaReaction<S: Saga> {
    given: GivenSaga<S>,
    result: Result<Vec<StepOf<S>>, RunError<S::Error>>,
}

/// Returns a new instance. Its aggregates execute all commands.
pub fn given_saga<S: Saga>(saga: S) -> GivenSaga<S> {
    GivenSaga {
        saga,
        instance: InstanceOf::<S>::default(),
        aggregates: Box::new(|_| Ok(())),
        outbox: VecDeque::new(),
        timers: Vec::new(),
        clock: ManualClock::default(),
        inputs: 0,
    }
}

#[allow(clippy::panic, reason = "a test kit fails tests by panicking")]
impl<S: Saga> GivenSaga<S> {
    /// Sets the aggregates' answers to commands.
    #[must_use]
    pub fn with_aggregates(
        mut self,
        aggregates: impl FnMut(&S::Command) -> Result<(), S::Refusal> + Send + 'static,
    ) -> Self {
        self.aggregates = Box::new(aggregates);
        self
    }

    /// Sets the clock.
    #[must_use]
    pub fn at(self, now: Timestamp) -> Self {
        self.clock.set(now);
        self
    }

    /// Delivers an event.
    #[must_use]
    pub fn when(self, event: S::Event) -> SagaReaction<S> {
        let now = self.clock.now();
        self.run(now, |run| run.event(event))
    }

    /// Fires a timer and sets the clock to its due time.
    ///
    /// # Panics
    /// When the timer is not set.
    #[must_use]
    #[track_caller]
    pub fn when_timed_out(mut self, timer: S::Timer) -> SagaReaction<S> {
        let Some(index) = self.timers.iter().position(|(set, _)| *set == timer) else {
            panic!("timer {timer:?} is not set; set are {:?}", self.timers)
        };
        let (timer, due) = self.timers.remove(index);
        self.clock.set(due);
        self.run(due, |run| run.timed_out(timer))
    }

    /// Delivers the first effect of the outbox, with an answer.
    ///
    /// # Panics
    /// When the outbox is empty.
    #[must_use]
    #[track_caller]
    pub fn when_delivered(mut self, answer: S::Answer) -> SagaReaction<S> {
        let Some((id, effect)) = self.outbox.pop_front() else { panic!("the outbox is empty") };
        let now = self.clock.now();
        self.run(now, |run| run.delivered(id, effect, answer))
    }

    /// Rejects the first effect of the outbox permanently.
    ///
    /// # Panics
    /// When the outbox is empty.
    #[must_use]
    #[track_caller]
    pub fn when_undeliverable(mut self, reason: &str) -> SagaReaction<S> {
        let Some((id, effect)) = self.outbox.pop_front() else { panic!("the outbox is empty") };
        let now = self.clock.now();
        self.run(now, |run| run.undeliverable(id, effect, reason.to_owned()))
    }

    /// Returns the saga's state.
    pub fn state(&self) -> &S::State {
        &self.instance.state
    }

    /// Returns the instance's phase.
    pub fn phase(&self) -> Phase {
        self.instance.phase
    }

    /// Returns the timers that are set.
    pub fn timers(&self) -> &[(S::Timer, Timestamp)] {
        &self.timers
    }

    /// Returns the undelivered effects.
    pub fn outbox(&self) -> impl Iterator<Item = &S::Effect> {
        self.outbox.iter().map(|(_, effect)| effect)
    }

    fn run(
        mut self,
        at: Timestamp,
        input: impl FnOnce(&mut Run<'_, S>) -> Result<(), RunError<S::Error>>,
    ) -> SagaReaction<S> {
        self.inputs += 1;
        let mut instance = self.instance.clone();
        let result = self.drive(&mut instance, at, input);
        if result.is_ok() {
            self.instance = instance;
        }
        SagaReaction { given: self, result }
    }

    fn drive(
        &mut self,
        instance: &mut InstanceOf<S>,
        at: Timestamp,
        input: impl FnOnce(&mut Run<'_, S>) -> Result<(), RunError<S::Error>>,
    ) -> Result<Vec<StepOf<S>>, RunError<S::Error>> {
        let mut steps = Vec::new();
        let mut run = Run::new(&self.saga, instance, Uuid::from_u128(self.inputs), at);
        input(&mut run)?;
        while let Some(work) = run.next_work()? {
            match work {
                Work::Command(command) => match (self.aggregates)(&command) {
                    Ok(()) => {
                        steps.push(SagaStep::Commanded(command));
                        run.done();
                    }
                    Err(refusal) => {
                        steps.push(SagaStep::Refused(command));
                        run.refused(refusal)?;
                    }
                },
                Work::Send { id, effect } => {
                    steps.push(SagaStep::Sent(effect.clone()));
                    self.outbox.push_back((id, effect));
                }
                Work::SetTimer { timer, at, .. } => {
                    steps.push(SagaStep::Set(timer.clone(), at));
                    self.timers.retain(|(set, _)| *set != timer);
                    self.timers.push((timer, at));
                }
                Work::CancelTimer(timer) => {
                    self.timers.retain(|(set, _)| *set != timer);
                    steps.push(SagaStep::Cancelled(timer));
                }
                Work::CancelTimers => {
                    self.timers.clear();
                    steps.push(SagaStep::Completed);
                }
            }
        }
        Ok(steps)
    }
}

#[allow(clippy::panic, reason = "a test kit fails tests by panicking")]
impl<S: Saga> SagaReaction<S> {
    /// Asserts the consequences in order. Returns the saga after them.
    ///
    /// # Panics
    /// When the consequences differ or the input failed.
    #[track_caller]
    pub fn then(self, expected: impl IntoIterator<Item = StepOf<S>>) -> GivenSaga<S> {
        let expected: Vec<_> = expected.into_iter().collect();
        match self.result {
            Ok(steps) => assert_eq!(steps, expected, "consequences of the input"),
            Err(error) => panic!("input failed: {error}; expected {expected:?}"),
        }
        self.given
    }

    /// Asserts that there are no consequences.
    ///
    /// # Panics
    /// When there are any or the input failed.
    #[track_caller]
    pub fn then_nothing(self) -> GivenSaga<S> {
        self.then([])
    }

    /// Asserts that the input fails with an error that satisfies `expected`. Returns the unchanged saga.
    ///
    /// # Panics
    /// When the input succeeded or failed with another error.
    #[track_caller]
    pub fn then_parked(self, expected: impl FnOnce(&RunError<S::Error>) -> bool) -> GivenSaga<S> {
        match self.result {
            Ok(steps) => panic!("input succeeded with {steps:?}; expected an error"),
            Err(error) => assert!(expected(&error), "input failed with another error: {error:?}"),
        }
        self.given
    }

    /// Passes the consequences to `inspect`.
    ///
    /// # Panics
    /// When the input failed.
    #[track_caller]
    pub fn then_inspect(self, inspect: impl FnOnce(&[StepOf<S>])) -> GivenSaga<S> {
        match self.result {
            Ok(steps) => inspect(&steps),
            Err(error) => panic!("input failed: {error}"),
        }
        self.given
    }

    /// Accepts any consequences.
    ///
    /// # Panics
    /// When the input failed.
    #[track_caller]
    pub fn then_anything(self) -> GivenSaga<S> {
        if let Err(error) = self.result {
            panic!("input failed: {error}");
        }
        self.given
    }
}

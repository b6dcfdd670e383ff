//! Sagas, tried without a store.
//!
//! The problem: a process of days, with refusals and answers from others, must be tried in a line each.
//! The invariant: the kit drives the same [`Run`] as a durable keeper of instances; only the keeping is missing.

use std::collections::VecDeque;

use uuid::Uuid;

use crate::{
    clock::{Clock, ManualClock},
    saga::{InstanceOf, Phase, Run, RunError, Saga, Work},
    timestamp::Timestamp,
};

/// What came of an input, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Did<C, F, T> {
    /// An aggregate was commanded and obeyed.
    Commanded(C),
    /// An aggregate was commanded and refused.
    Refused(C),
    /// An effect was put into the outbox.
    Sent(F),
    /// A timer was set.
    Set(T, Timestamp),
    /// A timer was cancelled.
    Cancelled(T),
    /// The process is over.
    Completed,
}

type DidOf<S> = Did<<S as Saga>::Command, <S as Saga>::Effect, <S as Saga>::Timer>;
type Aggregates<S> = Box<dyn FnMut(&<S as Saga>::Command) -> Result<(), <S as Saga>::Refusal> + Send>;

/// An instance of a saga, and everything around it.
pub struct GivenSaga<S: Saga> {
    saga: S,
    instance: InstanceOf<S>,
    aggregates: Aggregates<S>,
    outbox: VecDeque<(Uuid, S::Effect)>,
    timers: Vec<(S::Timer, Timestamp)>,
    clock: ManualClock,
    inputs: u128,
}

/// What the saga made of an input.
pub struct Reacted<S: Saga> {
    given: GivenSaga<S>,
    result: Result<Vec<DidOf<S>>, RunError<S::Error>>,
}

/// A saga at its beginning; aggregates do what it asks.
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
    /// The same among aggregates that answer so.
    #[must_use]
    pub fn among(mut self, aggregates: impl FnMut(&S::Command) -> Result<(), S::Refusal> + Send + 'static) -> Self {
        self.aggregates = Box::new(aggregates);
        self
    }

    /// The same at this instant.
    #[must_use]
    pub fn at(self, now: Timestamp) -> Self {
        self.clock.set(now);
        self
    }

    /// An event comes.
    #[must_use]
    pub fn when(self, event: S::Event) -> Reacted<S> {
        let now = self.clock.now();
        self.run(now, |run| run.event(event))
    }

    /// A timer is due.
    ///
    /// # Panics
    /// When it isn't set.
    #[must_use]
    #[track_caller]
    pub fn when_timed_out(mut self, timer: S::Timer) -> Reacted<S> {
        let Some(index) = self.timers.iter().position(|(set, _)| *set == timer) else {
            panic!("{timer:?} isn't set; {:?} are", self.timers)
        };
        let (timer, due) = self.timers.remove(index);
        self.clock.set(due);
        self.run(due, |run| run.timed_out(timer))
    }

    /// The first effect of the outbox is delivered and answered.
    ///
    /// # Panics
    /// When the outbox is empty.
    #[must_use]
    #[track_caller]
    pub fn when_delivered(mut self, answer: S::Answer) -> Reacted<S> {
        let Some((id, effect)) = self.outbox.pop_front() else { panic!("nothing in the outbox") };
        let now = self.clock.now();
        self.run(now, |run| run.delivered(id, effect, answer))
    }

    /// The first effect of the outbox is refused for good.
    ///
    /// # Panics
    /// When the outbox is empty.
    #[must_use]
    #[track_caller]
    pub fn when_undeliverable(mut self, reason: &str) -> Reacted<S> {
        let Some((id, effect)) = self.outbox.pop_front() else { panic!("nothing in the outbox") };
        let now = self.clock.now();
        self.run(now, |run| run.undeliverable(id, effect, reason.to_owned()))
    }

    /// The state, to look at.
    pub fn state(&self) -> &S::State {
        &self.instance.state
    }

    /// Where it is, to look at.
    pub fn phase(&self) -> Phase {
        self.instance.phase
    }

    /// The timers that are set, to look at.
    pub fn timers(&self) -> &[(S::Timer, Timestamp)] {
        &self.timers
    }

    /// The effects that wait to be delivered, to look at.
    pub fn outbox(&self) -> impl Iterator<Item = &S::Effect> {
        self.outbox.iter().map(|(_, effect)| effect)
    }

    fn run(
        mut self,
        at: Timestamp,
        input: impl FnOnce(&mut Run<'_, S>) -> Result<(), RunError<S::Error>>,
    ) -> Reacted<S> {
        self.inputs += 1;
        let mut instance = self.instance.clone();
        let result = self.drive(&mut instance, at, input);
        if result.is_ok() {
            self.instance = instance;
        }
        Reacted { given: self, result }
    }

    fn drive(
        &mut self,
        instance: &mut InstanceOf<S>,
        at: Timestamp,
        input: impl FnOnce(&mut Run<'_, S>) -> Result<(), RunError<S::Error>>,
    ) -> Result<Vec<DidOf<S>>, RunError<S::Error>> {
        let mut did = Vec::new();
        let mut run = Run::new(&self.saga, instance, Uuid::from_u128(self.inputs), at);
        input(&mut run)?;
        while let Some(work) = run.next_work()? {
            match work {
                Work::Command(command) => match (self.aggregates)(&command) {
                    Ok(()) => {
                        did.push(Did::Commanded(command));
                        run.done();
                    }
                    Err(refusal) => {
                        did.push(Did::Refused(command));
                        run.refused(refusal)?;
                    }
                },
                Work::Send { id, effect } => {
                    did.push(Did::Sent(effect.clone()));
                    self.outbox.push_back((id, effect));
                }
                Work::SetTimer { timer, at, .. } => {
                    did.push(Did::Set(timer.clone(), at));
                    self.timers.retain(|(set, _)| *set != timer);
                    self.timers.push((timer, at));
                }
                Work::CancelTimer(timer) => {
                    self.timers.retain(|(set, _)| *set != timer);
                    did.push(Did::Cancelled(timer));
                }
                Work::CancelTimers => {
                    self.timers.clear();
                    did.push(Did::Completed);
                }
            }
        }
        Ok(did)
    }
}

#[allow(clippy::panic, reason = "a test kit fails tests by panicking")]
impl<S: Saga> Reacted<S> {
    /// Exactly this, in this order; gives the saga after it, to go on with.
    ///
    /// # Panics
    /// When it did otherwise.
    #[track_caller]
    pub fn then(self, expected: impl IntoIterator<Item = DidOf<S>>) -> GivenSaga<S> {
        let expected: Vec<_> = expected.into_iter().collect();
        match self.result {
            Ok(did) => assert_eq!(did, expected, "what the saga did"),
            Err(error) => panic!("not taken: {error}; expected {expected:?}"),
        }
        self.given
    }

    /// Nothing.
    ///
    /// # Panics
    /// When it did something.
    #[track_caller]
    pub fn then_nothing(self) -> GivenSaga<S> {
        self.then([])
    }

    /// The input isn't taken; somebody has to look at it. Gives the saga as it was before.
    ///
    /// # Panics
    /// When it was taken, or for another reason.
    #[track_caller]
    pub fn then_parked(self, expected: impl FnOnce(&RunError<S::Error>) -> bool) -> GivenSaga<S> {
        match self.result {
            Ok(did) => panic!("did {did:?}; expected not to be taken"),
            Err(error) => assert!(expected(&error), "not taken for another reason: {error:?}"),
        }
        self.given
    }

    /// Whatever `seen` makes of it.
    ///
    /// # Panics
    /// When the input wasn't taken.
    #[track_caller]
    pub fn then_seen(self, seen: impl FnOnce(&[DidOf<S>])) -> GivenSaga<S> {
        match self.result {
            Ok(did) => seen(&did),
            Err(error) => panic!("not taken: {error}"),
        }
        self.given
    }

    /// Whatever it is.
    ///
    /// # Panics
    /// When the input wasn't taken.
    #[track_caller]
    pub fn then_whatever(self) -> GivenSaga<S> {
        if let Err(error) = self.result {
            panic!("not taken: {error}");
        }
        self.given
    }
}

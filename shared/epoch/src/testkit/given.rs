//! Given-when-then tests of aggregates.

use crate::aggregate::Aggregate;

/// An aggregate after its given events.
#[derive(Debug, Clone)]
pub struct Given<A> {
    state: A,
}

/// The aggregate's decision on a command.
#[derive(Debug)]
pub struct Decision<A: Aggregate> {
    state: A,
    result: Result<Vec<A::Event>, A::Error>,
}

/// Returns the aggregate after `events`.
pub fn given<A: Aggregate>(events: impl IntoIterator<Item = A::Event>) -> Given<A> {
    let mut state = A::default();
    for event in events {
        state.evolve(&event);
    }
    Given { state }
}

impl<A: Aggregate> Given<A> {
    /// Decides a command.
    #[must_use]
    pub fn when(self, command: &A::Command) -> Decision<A> {
        let result = self.state.decide(command);
        Decision { state: self.state, result }
    }

    /// Returns the state.
    pub fn state(&self) -> &A {
        &self.state
    }
}

#[allow(clippy::panic, reason = "a test kit fails tests by panicking")]
impl<A: Aggregate> Decision<A> {
    /// Asserts the decided events. Returns the aggregate after them.
    ///
    /// # Panics
    /// When the decision differs.
    #[track_caller]
    pub fn then(self, expected: impl IntoIterator<Item = A::Event>) -> Given<A> {
        let expected: Vec<_> = expected.into_iter().collect();
        match self.result {
            Ok(events) => assert_eq!(events, expected, "decided events"),
            Err(error) => panic!("rejected: {error}; expected {expected:?}"),
        }
        let mut state = self.state;
        for event in &expected {
            state.evolve(event);
        }
        Given { state }
    }

    /// Asserts that the command is a no-op. Returns the unchanged aggregate.
    ///
    /// # Panics
    /// When the decision differs.
    #[track_caller]
    pub fn then_nothing(self) -> Given<A> {
        self.then([])
    }

    /// Asserts that the command is rejected with an error that satisfies `expected`.
    ///
    /// # Panics
    /// When the decision differs.
    #[track_caller]
    pub fn then_rejected(self, expected: impl FnOnce(&A::Error) -> bool) {
        match self.result {
            Ok(events) => panic!("decided {events:?}; expected a rejection"),
            Err(error) => assert!(expected(&error), "rejected for another reason: {error:?}"),
        }
    }
}

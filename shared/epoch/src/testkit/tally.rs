//! The aggregate of the conformance suites.

use serde::{Deserialize, Serialize};

use crate::aggregate::Aggregate;

/// An amount was added.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tallied {
    /// The added amount.
    pub by: i64,
}

/// The tally was deleted; a tombstone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ThrownAway {}

const TALLIED: &str = r#"{"type": "record", "name": "Tallied", "fields": [{"name": "by", "type": "long"}]}"#;
const THROWN_AWAY: &str = r#"{"type": "record", "name": "ThrownAway", "fields": []}"#;

crate::events! {
    /// Events of a tally.
    pub enum TallyEvent { Tallied = [TALLIED], ThrownAway = [THROWN_AWAY] }
}

/// Commands to a tally.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TallyCommand {
    /// Add an amount; 0 is a no-op.
    Add(i64),
    /// Add 1, delete the tally, and add an amount, all in one command.
    StartAgainWith(i64),
    /// Delete the tally; rejected when it is empty.
    ThrowAway,
}

/// An empty tally cannot be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the tally is empty")]
pub struct EmptyTally;

/// The aggregate of the conformance suites: a sum that can be deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// The sum since its creation.
    pub total: i64,
    /// The number of additions since its creation.
    pub counts: u64,
}

impl Aggregate for Tally {
    const NAME: &'static str = "tally";
    type Command = TallyCommand;
    type Event = TallyEvent;
    type Error = EmptyTally;

    fn decide(&self, command: &TallyCommand) -> Result<Vec<TallyEvent>, EmptyTally> {
        match command {
            TallyCommand::Add(0) => Ok(vec![]),
            TallyCommand::Add(by) => Ok(vec![Tallied { by: *by }.into()]),
            TallyCommand::StartAgainWith(by) => {
                Ok(vec![Tallied { by: 1 }.into(), ThrownAway {}.into(), Tallied { by: *by }.into()])
            }
            TallyCommand::ThrowAway if self.counts == 0 => Err(EmptyTally),
            TallyCommand::ThrowAway => Ok(vec![ThrownAway {}.into()]),
        }
    }

    fn evolve(&mut self, event: &TallyEvent) {
        if let TallyEvent::Tallied(event) = event {
            self.total += event.by;
            self.counts += 1;
        }
    }

    fn is_tombstone(event: &TallyEvent) -> bool {
        matches!(event, TallyEvent::ThrownAway(_))
    }
}

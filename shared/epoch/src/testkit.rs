//! Test support: given-when-then tests of aggregates and sagas, and conformance suites of stores and buses.
//!
//! ```
//! # use epoch::{Aggregate, testkit::given};
//! # use serde::{Deserialize, Serialize};
//! # #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
//! # struct Opened {}
//! # #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
//! # struct Closed {}
//! # const OPENED: &str = r#"{"type": "record", "name": "Opened", "fields": []}"#;
//! # const CLOSED: &str = r#"{"type": "record", "name": "Closed", "fields": []}"#;
//! # epoch::events! { enum DoorEvent { Opened = [OPENED], Closed = [CLOSED] } }
//! # #[derive(Debug, Clone, Default, Serialize, Deserialize)]
//! # struct Door { open: bool }
//! # #[derive(Debug, PartialEq, thiserror::Error)]
//! # #[error("the door is closed")]
//! # struct IsClosed;
//! # enum Command { Open, Close }
//! # impl Aggregate for Door {
//! #     const NAME: &'static str = "door";
//! #     type Command = Command;
//! #     type Event = DoorEvent;
//! #     type Error = IsClosed;
//! #     fn decide(&self, command: &Command) -> Result<Vec<DoorEvent>, IsClosed> {
//! #         match command {
//! #             Command::Open if self.open => Ok(vec![]),
//! #             Command::Open => Ok(vec![Opened {}.into()]),
//! #             Command::Close if self.open => Ok(vec![Closed {}.into()]),
//! #             Command::Close => Err(IsClosed),
//! #         }
//! #     }
//! #     fn evolve(&mut self, event: &DoorEvent) { self.open = matches!(event, DoorEvent::Opened(_)); }
//! # }
//! given::<Door>([])
//!     .when(&Command::Open).then([Opened {}.into()])
//!     .when(&Command::Open).then_nothing()
//!     .when(&Command::Close).then([Closed {}.into()])
//!     .when(&Command::Close).then_rejected(|error| *error == IsClosed);
//! ```

mod appends;
pub mod bus;
mod event_store;
mod given;
pub mod metrics;
mod ports;
mod saga;
mod snapshot_store;
mod state_store;
mod streams;
mod tally;

pub use event_store::store_conformance;
pub use given::{Decision, Given, given};
pub use ports::free_ports;
pub use saga::{GivenSaga, SagaReaction, SagaStep, given_saga};
pub use snapshot_store::snapshot_store_conformance;
pub use state_store::state_store_conformance;
pub use tally::{EmptyTally, Tallied, Tally, TallyCommand, TallyEvent, ThrownAway};

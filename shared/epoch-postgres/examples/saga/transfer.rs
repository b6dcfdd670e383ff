//! A transfer: requested, then completed or failed.

use epoch::Aggregate;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Requested {
    pub(crate) account: Uuid,
    pub(crate) cents: i64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Finished {}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Failed {
    pub(crate) reason: String,
}

const REQUESTED: &str = r#"{"type": "record", "name": "Requested", "fields": [
    {"name": "account", "type": {"type": "string", "logicalType": "uuid"}}, {"name": "cents", "type": "long"}]}"#;
const FINISHED: &str = r#"{"type": "record", "name": "Finished", "fields": []}"#;
const FAILED: &str = r#"{"type": "record", "name": "Failed", "fields": [{"name": "reason", "type": "string"}]}"#;

epoch::events! {
    pub(crate) enum TransferEvent { Requested = [REQUESTED], Finished = [FINISHED], Failed = [FAILED] }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum TransferCommand {
    Request(Requested),
    Finish,
    Fail(String),
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) enum Transfer {
    #[default]
    New,
    Open,
    Done,
    Failed(String),
}

#[derive(Debug, thiserror::Error)]
#[error("the transfer is {0:?} and does not accept this command")]
pub(crate) struct WrongState(Transfer);

impl Aggregate for Transfer {
    const NAME: &'static str = "transfer";
    type Command = TransferCommand;
    type Event = TransferEvent;
    type Error = WrongState;

    fn decide(&self, command: &TransferCommand) -> Result<Vec<TransferEvent>, WrongState> {
        match (self, command) {
            (Self::New, TransferCommand::Request(requested)) => Ok(vec![(*requested).into()]),
            (Self::Open, TransferCommand::Finish) => Ok(vec![Finished {}.into()]),
            (Self::Open, TransferCommand::Fail(reason)) => Ok(vec![Failed { reason: reason.clone() }.into()]),
            _ => Err(WrongState(self.clone())),
        }
    }

    fn evolve(&mut self, event: &TransferEvent) {
        *self = match event {
            TransferEvent::Requested(_) => Self::Open,
            TransferEvent::Finished(_) => Self::Done,
            TransferEvent::Failed(failed) => Self::Failed(failed.reason.clone()),
        }
    }
}

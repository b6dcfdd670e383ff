//! A transfer: asked for, then done or failed.

use epoch::Aggregate;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Asked {
    pub(crate) account: Uuid,
    pub(crate) cents: i64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Finished {}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Failed {
    pub(crate) why: String,
}

const ASKED: &str = r#"{"type": "record", "name": "Asked", "fields": [
    {"name": "account", "type": {"type": "string", "logicalType": "uuid"}}, {"name": "cents", "type": "long"}]}"#;
const FINISHED: &str = r#"{"type": "record", "name": "Finished", "fields": []}"#;
const FAILED: &str = r#"{"type": "record", "name": "Failed", "fields": [{"name": "why", "type": "string"}]}"#;

epoch::events! {
    pub(crate) enum TransferEvent { Asked = [ASKED], Finished = [FINISHED], Failed = [FAILED] }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum TransferCommand {
    Ask(Asked),
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
#[error("a transfer that is {0:?} can't do that")]
pub(crate) struct WrongState(Transfer);

impl Aggregate for Transfer {
    const NAME: &'static str = "transfer";
    type Command = TransferCommand;
    type Event = TransferEvent;
    type Error = WrongState;

    fn decide(&self, command: &TransferCommand) -> Result<Vec<TransferEvent>, WrongState> {
        match (self, command) {
            (Self::New, TransferCommand::Ask(asked)) => Ok(vec![(*asked).into()]),
            (Self::Open, TransferCommand::Finish) => Ok(vec![Finished {}.into()]),
            (Self::Open, TransferCommand::Fail(why)) => Ok(vec![Failed { why: why.clone() }.into()]),
            _ => Err(WrongState(self.clone())),
        }
    }

    fn evolve(&mut self, event: &TransferEvent) {
        *self = match event {
            TransferEvent::Asked(_) => Self::Open,
            TransferEvent::Finished(_) => Self::Done,
            TransferEvent::Failed(failed) => Self::Failed(failed.why.clone()),
        }
    }
}

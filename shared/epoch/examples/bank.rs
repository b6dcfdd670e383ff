//! A bank account on the in-memory store: `cargo run -p epoch --example bank`.

use epoch::{Aggregate, CommandContext, ExecuteError, Repository, Version, memory::MemoryStore};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Deposited {
    cents: i64,
}
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Withdrawn {
    cents: i64,
}
const DEPOSITED: &str = r#"{"type": "record", "name": "Deposited", "fields": [{"name": "cents", "type": "long"}]}"#;
const WITHDRAWN: &str = r#"{"type": "record", "name": "Withdrawn", "fields": [{"name": "cents", "type": "long"}]}"#;
epoch::events! { pub(crate) enum AccountEvent { Deposited = [DEPOSITED], Withdrawn = [WITHDRAWN] } }

impl AccountEvent {
    pub(crate) fn cents(&self) -> i64 {
        match self {
            Self::Deposited(event) => event.cents,
            Self::Withdrawn(event) => -event.cents,
        }
    }
}

#[derive(Debug)]
pub(crate) enum AccountCommand {
    Deposit(i64),
    Withdraw(i64),
}

#[derive(Debug, thiserror::Error)]
#[error("insufficient balance: {0} cents")]
pub(crate) struct TooLittle(i64);

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Account {
    pub(crate) cents: i64,
}
impl Aggregate for Account {
    const NAME: &'static str = "account";
    type Command = AccountCommand;
    type Event = AccountEvent;
    type Error = TooLittle;

    fn decide(&self, command: &AccountCommand) -> Result<Vec<AccountEvent>, TooLittle> {
        match command {
            AccountCommand::Deposit(cents) => Ok(vec![Deposited { cents: *cents }.into()]),
            AccountCommand::Withdraw(cents) if *cents > self.cents => Err(TooLittle(self.cents)),
            AccountCommand::Withdraw(cents) => Ok(vec![Withdrawn { cents: *cents }.into()]),
        }
    }
    fn evolve(&mut self, event: &AccountEvent) {
        self.cents += event.cents();
    }
}

/// Runs the example and returns the account's final balance and version.
pub(crate) async fn run() -> Result<(i64, Version), ExecuteError<TooLittle>> {
    let accounts = Repository::<Account, _>::new(MemoryStore::new());
    let (id, context) = (Uuid::now_v7(), CommandContext::new());

    let outcome = accounts.execute(id, &AccountCommand::Deposit(100), &context).await?;
    println!("100 deposited: version {}", outcome.version);
    if let Err(error) = accounts.execute(id, &AccountCommand::Withdraw(500), &context).await {
        println!("500 not withdrawn: {error}");
    }
    let repeatable = CommandContext::new().repeatable(Uuid::now_v7(), "withdraw 30");
    for _ in 0..2 {
        let outcome = accounts.execute(id, &AccountCommand::Withdraw(30), &repeatable).await?;
        println!("30 withdrawn: version {}, repeated: {}", outcome.version, outcome.repeated);
    }
    let account = accounts.load(id).await?;
    println!("balance {} at version {}", account.state.cents, account.version);
    Ok((account.state.cents, account.version))
}

#[tokio::main]
async fn main() -> Result<(), ExecuteError<TooLittle>> {
    run().await.map(drop)
}

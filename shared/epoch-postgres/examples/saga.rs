//! Transfers money to another bank, and refunds it when the other bank rejects the transfer.
//!
//! Run with `DATABASE_URL=… cargo run -p epoch-postgres --example saga`. The account is debited in the transaction that
//! begins the saga. The request to the other bank is sent after that commit, and retried until it is answered. A
//! rejection compensates the debit. The tables are in the schema `epoch_example_saga`.

use std::{convert::Infallible, sync::Arc, time::Duration};

use anyhow::Context;
use async_trait::async_trait;
use epoch::{
    Aggregate, CommandContext, Envelope, FastPath, Metadata, Repository, Saga, Timestamp,
    event::CodecError,
    saga::{Action, ActionOf, Input, InputOf, Undo},
};
use epoch_postgres::{
    CommandOutcome, EffectSender, HandlerError, PgSaga, PgStore, PgSubscription, PgTx, Progress, SagaCommands,
    SagaEffects, SagaTimers, SendError, migrate, saga,
};
use serde::{Deserialize, Serialize};
use sqlx::migrate::Migrator;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    bank::{Account, AccountCommand},
    database::connect_to,
    transfer::{Requested, Transfer, TransferCommand, TransferEvent},
};

#[path = "../../epoch/examples/bank.rs"]
#[allow(dead_code, reason = "this example uses a part of it")]
mod bank;
#[path = "support/database.rs"]
mod database;
#[path = "saga/transfer.rs"]
mod transfer;

const SCHEMA: &str = "epoch_example_saga";
const DAY_MILLIS: i64 = 24 * 60 * 60 * 1_000;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Command {
    Withdraw { account: Uuid, cents: i64 },
    PutBack { account: Uuid, cents: i64 },
    Transfer(Uuid, TransferCommand),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Effect {
    PayOut { transfer: Uuid, cents: i64 },
    CallBack { transfer: Uuid },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Timer {
    AnswerTimeout,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct TransferState {
    transfer: Uuid,
    was_abandoned: bool,
}

/// Decides the next steps, without any I/O.
struct Transferring;

impl Transferring {
    fn abandon(state: &mut TransferState, reason: &str) -> Vec<ActionOf<Self>> {
        state.was_abandoned = true;
        let failed = Command::Transfer(state.transfer, TransferCommand::Fail(reason.to_owned()));
        // The command comes last: the steps before it take effect even if it is rejected.
        vec![Action::Compensate, Action::Complete, Action::command(failed)]
    }
}

impl Saga for Transferring {
    const NAME: &'static str = "transferring";
    type State = TransferState;
    type Event = (Uuid, TransferEvent);
    type Command = Command;
    type Refusal = String;
    type Effect = Effect;
    type Answer = ();
    type Timer = Timer;
    type Error = Infallible;

    fn aggregates(&self) -> &'static [&'static str] {
        &[Transfer::NAME]
    }

    fn correlate(&self, event: &Envelope) -> Result<Option<(String, Self::Event)>, CodecError> {
        Ok(Some((event.aggregate_id.to_string(), (event.aggregate_id, event.decode()?))))
    }

    fn react(
        &self,
        state: &mut TransferState,
        input: &InputOf<Self>,
        at: Timestamp,
    ) -> Result<Vec<ActionOf<Self>>, Infallible> {
        Ok(match input {
            Input::Event((transfer, TransferEvent::Requested(requested))) => {
                let (transfer, Requested { account, cents }) = (*transfer, *requested);
                state.transfer = transfer;
                vec![
                    Action::command(Command::Withdraw { account, cents })
                        .undone_by(Undo::Command(Command::PutBack { account, cents })),
                    Action::send(Effect::PayOut { transfer, cents })
                        .undone_by(Undo::Send(Effect::CallBack { transfer })),
                    Action::SetTimer {
                        timer: Timer::AnswerTimeout,
                        at: Timestamp::from_millis(at.as_millis() + DAY_MILLIS),
                    },
                ]
            }
            Input::Refused { command: Command::Withdraw { .. }, refusal, .. } => Self::abandon(state, refusal),
            Input::Undeliverable { effect: Effect::PayOut { .. }, reason, .. } if !state.was_abandoned => {
                Self::abandon(state, reason)
            }
            Input::TimedOut(Timer::AnswerTimeout) => Self::abandon(state, "the other bank doesn't answer"),
            Input::Delivered { effect: Effect::PayOut { transfer, .. }, .. } if !state.was_abandoned => {
                vec![Action::command(Command::Transfer(*transfer, TransferCommand::Finish)), Action::Complete]
            }
            _ => vec![],
        })
    }
}

/// Executes the saga's commands in the transaction of its input.
struct Commands {
    accounts: Repository<Account, PgStore>,
    transfers: Repository<Transfer, PgStore>,
}

#[async_trait]
impl SagaCommands<Transferring> for Commands {
    async fn execute(
        &self,
        tx: &mut PgTx,
        command: &Command,
        context: &CommandContext,
    ) -> Result<CommandOutcome<String>, HandlerError> {
        let (id, command) = match command {
            Command::Transfer(id, command) => {
                let executed = tx.execute(&self.transfers, *id, command, context).await;
                return CommandOutcome::from_executed(executed, |refusal| refusal.to_string());
            }
            Command::Withdraw { account, cents } => (*account, AccountCommand::Withdraw(*cents)),
            Command::PutBack { account, cents } => (*account, AccountCommand::Deposit(*cents)),
        };
        let executed = tx.execute(&self.accounts, id, &command, context).await;
        CommandOutcome::from_executed(executed, |refusal| refusal.to_string())
    }
}

/// The other bank. A real sender would use HTTP, with the key as `Idempotency-Key`.
struct OtherBank;

#[async_trait]
impl EffectSender<Transferring> for OtherBank {
    async fn send(&self, effect: &Effect, key: Uuid, _: Option<&Metadata>) -> Result<(), SendError> {
        println!("  the other bank receives {effect:?}, key {key}");
        match effect {
            Effect::PayOut { cents, .. } if *cents > 50 => {
                Err(SendError::Refused { detail: "more than 50 cents are suspicious".to_owned() })
            }
            _ => Ok(()),
        }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let pool = connect_to(SCHEMA).await?;
    migrate(&pool, SCHEMA, &Migrator::DEFAULT).await?;
    let local = FastPath::new();
    let (store, appender) = PgStore::new(pool.clone(), local.clone());
    tokio::spawn(appender.run());

    let (accounts, transfers) = (Repository::new(store.clone()), Repository::new(store.clone()));
    let commands = Commands { accounts: accounts.clone(), transfers: transfers.clone() };
    let transferring = Arc::new(PgSaga::new(Transferring, commands));
    let gate = PgSubscription::new(transferring.clone(), store.clone(), Progress::new(pool));
    tokio::spawn(local.serve(Arc::new(gate)));
    let stop = CancellationToken::new();
    let timers = tokio::spawn(SagaTimers::new(transferring.clone(), store.clone()).run(stop.clone()));
    let effects = tokio::spawn(SagaEffects::new(transferring, store.clone(), Arc::new(OtherBank)).run(stop.clone()));

    let account = Uuid::now_v7();
    accounts.execute(account, &AccountCommand::Deposit(100), &CommandContext::new()).await?;
    for cents in [40, 55, 500] {
        println!("a transfer of {cents} of {} cents", accounts.load(account).await?.state.cents);
        let id = Uuid::now_v7();
        transfers.execute(id, &TransferCommand::Request(Requested { account, cents }), &CommandContext::new()).await?;
        let completion = async {
            loop {
                let status = saga::status(&store, Transferring::NAME, &id.to_string()).await?;
                if status.is_some_and(|status| status.phase == "completed") {
                    return anyhow::Ok(());
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), completion)
            .await
            .context("the saga did not complete within 30 s")??;
        let transfer = transfers.load(id).await?.state;
        println!("  {transfer:?}; {} cents remain", accounts.load(account).await?.state.cents);
    }
    stop.cancel();
    timers.await?;
    effects.await?;
    Ok(())
}

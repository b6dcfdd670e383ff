//! The saga `open_accounts`: each organization has a billing account from its beginning.
//!
//! The invariant: the account has its organization's id and is opened once, in the transaction that says that the event was
//! taken; one that an operator opened before stays as it is.

use async_trait::async_trait;
use contracts::organization::{AGGREGATE, OrganizationEvent};
use epoch::{Batch, CommandContext, ExecuteError, Repository, handler::EventHandler};
use epoch_postgres::{HandlerError, PgStore, PgTx};

use crate::domain::{
    account::{Account, AccountCommand, AccountError},
    currency::Currency,
};

/// Who opened the account, as its events remember.
const ACTOR: &str = "service:billing";

/// The saga `open_accounts`.
pub struct OpenAccounts {
    accounts: Repository<Account, PgStore>,
    currency: Currency,
}

impl OpenAccounts {
    /// The subscription's name.
    pub const NAME: &'static str = "open_accounts";

    /// The saga that opens accounts in this currency.
    #[must_use]
    pub fn new(accounts: Repository<Account, PgStore>, currency: Currency) -> Self {
        Self { accounts, currency }
    }
}

#[async_trait]
impl EventHandler<PgTx> for OpenAccounts {
    type Error = HandlerError;

    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn aggregates(&self) -> &'static [&'static str] {
        &[AGGREGATE]
    }

    async fn handle(&self, tx: &mut PgTx, events: &Batch) -> Result<(), HandlerError> {
        for event in events {
            if !matches!(event.decode()?, OrganizationEvent::OrganizationCreated(_)) {
                continue;
            }
            let organization = event.aggregate_id;
            let mut context = CommandContext::caused_by(event, ACTOR).for_tenant(organization);
            context.occurred_at = event.occurred_at;
            let open = AccountCommand::Open { currency: self.currency, time_zone: "UTC".to_owned() };
            match tx.execute(&self.accounts, organization, &open, &context).await {
                Ok(_) | Err(ExecuteError::Rejected(AccountError::AlreadyExists)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

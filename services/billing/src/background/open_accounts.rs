//! The saga `open_accounts`: each organization has a billing account from its beginning.
//!
//! The invariant: the account has its organization's id and is opened once, by the standard plan as it is then, in the transaction
//! that says that the event was taken; one that an operator opened before stays as it is.

use async_trait::async_trait;
use contracts::organization::{AGGREGATE, OrganizationEvent};
use epoch::{Batch, CommandContext, handler::EventHandler};
use epoch_postgres::{HandlerError, PgTx};
use rating::account::AccountError;

use crate::invoicing::{error::LedgerError, ledger::Ledger, open::Opening};

/// Who opened the account, as its events remember.
const ACTOR: &str = "service:billing";

/// The saga `open_accounts`.
pub struct OpenAccounts {
    ledger: Ledger,
}

impl OpenAccounts {
    /// The subscription's name.
    pub const NAME: &'static str = "open_accounts";

    /// The saga that opens accounts in this ledger.
    #[must_use]
    pub fn new(ledger: Ledger) -> Self {
        Self { ledger }
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
            let currency = self.ledger.standard().currency;
            let opening = Opening { currency, time_zone: "UTC".to_owned(), plan: None };
            match self.ledger.open_in(tx, organization, &opening, &context).await {
                Ok(_) | Err(LedgerError::Account(AccountError::AlreadyExists)) => {}
                Err(LedgerError::Store(error)) => return Err(error.into()),
                Err(LedgerError::Sql(error)) => return Err(error.into()),
                Err(error) => return Err(HandlerError::refused(error)),
            }
        }
        Ok(())
    }
}

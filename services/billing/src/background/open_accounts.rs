//! The saga `open_accounts`: opens a billing account for each new organization.
//!
//! The account has the id of its organization and the current version of the standard plan. It is opened in the transaction that
//! advances the subscription. An account that an operator opened before stays as it is.

use async_trait::async_trait;
use contracts::organization::{AGGREGATE, OrganizationEvent};
use epoch::{Batch, CommandContext, handler::EventHandler};
use epoch_postgres::{HandlerError, PgTx};
use rating::account::AccountError;

use crate::invoicing::{error::LedgerError, ledger::Ledger, open::Opening};

/// The actor of the recorded events.
const ACTOR: &str = "service:billing";

/// The saga `open_accounts`.
pub struct OpenAccounts {
    ledger: Ledger,
}

impl OpenAccounts {
    /// The name of the subscription, which stores its cursors.
    pub const NAME: &'static str = "open_accounts";

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

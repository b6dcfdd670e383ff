//! Opening billing accounts.
//!
//! The installation's prices are settings, and a changed setting must not change the price of an existing account. So one
//! transaction publishes the prices as a version of the standard plan, unless the last version has them, and opens the account
//! pinned to that version. Changed prices become another version, for accounts opened later. Concurrent openings publish a version
//! once.

use std::sync::Arc;

use epoch::{CommandContext, Executed};
use epoch_postgres::PgTx;
use futures::FutureExt;
use rating::{
    account::{AccountCommand, AccountError, Pin},
    money::currency::Currency,
    pricing::plan_aggregate::{PlanCommand, PlanError, standard},
    validation::Refused,
};
use uuid::Uuid;

use crate::invoicing::{context::secondary, error::LedgerError, ledger::Ledger};

/// The terms of a new account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening {
    /// The currency of all charges.
    pub currency: Currency,
    /// The IANA time zone of days and months.
    pub time_zone: String,
    /// The plan version, or `None` for the standard plan.
    pub plan: Option<Pin>,
}

impl Ledger {
    /// Opens an organization's account.
    ///
    /// # Errors
    /// [`LedgerError`] for an open account, and for a plan that is retired or in another currency.
    pub async fn open(
        &self,
        organization: Uuid,
        opening: Opening,
        context: &CommandContext,
    ) -> Result<Executed, LedgerError> {
        let (ledger, opening, command) = (self.clone(), Arc::new(opening), context.clone());
        let opened = self.store.transaction(move |tx| {
            let (ledger, opening, context) = (ledger.clone(), Arc::clone(&opening), command.clone());
            async move { ledger.open_in(tx, organization, &opening, &context).await }.boxed()
        });
        opened.await
    }

    /// Opens an organization's account in the caller's transaction.
    ///
    /// # Errors
    /// As [`Ledger::open`].
    pub async fn open_in(
        &self,
        tx: &mut PgTx,
        organization: Uuid,
        opening: &Opening,
        context: &CommandContext,
    ) -> Result<Executed, LedgerError> {
        if tx.load(&self.accounts, organization).await?.state.is_open() {
            // A repetition of the command that opened the account returns its result.
            let first = tx.repeated::<AccountError>(context).await?;
            return first.ok_or(AccountError::AlreadyExists.into());
        }
        let pin = match opening.plan {
            Some(pin) => self.check_plan(tx, pin, opening.currency).await?,
            None => self.publish_standard_plan(tx, opening.currency, context).await?,
        };
        let open = AccountCommand::Open { pin, currency: opening.currency, time_zone: opening.time_zone.clone() };
        Ok(tx.execute(&self.accounts, organization, &open, context).await?)
    }

    /// Checks that a requested plan version takes customers and is in the account's currency.
    async fn check_plan(&self, tx: &mut PgTx, pin: Pin, currency: Currency) -> Result<Pin, LedgerError> {
        let catalogue = tx.load(&self.plans, pin.plan).await?.state;
        catalogue.require_open()?;
        let plan = catalogue.version(pin.plan, pin.version)?.currency;
        if plan != currency {
            let reason = format!("the account is in {}, the plan is in {}", currency.code(), plan.code());
            return Err(AccountError::from(Refused::new("currency", reason)).into());
        }
        Ok(pin)
    }

    /// Returns the version of the standard plan with the installation's prices. Publishes it if the last version has others.
    async fn publish_standard_plan(
        &self,
        tx: &mut PgTx,
        currency: Currency,
        context: &CommandContext,
    ) -> Result<Pin, LedgerError> {
        let standard_currency = self.standard.currency;
        if standard_currency != currency {
            let (standard, currency) = (standard_currency.code(), currency.code());
            let reason =
                format!("the standard plan is in {standard}: an account in {currency} needs a plan in {currency}");
            return Err(AccountError::from(Refused::new("currency", reason)).into());
        }
        // Plans belong to no organization.
        let plan_context = CommandContext { tenant: None, ..secondary(context) };
        let publish = PlanCommand::Offer(self.standard_definition.as_ref().clone());
        tx.execute(&self.plans, standard(), &publish, &plan_context).await?;
        let versions = tx.load(&self.plans, standard()).await?.state.versions().len();
        let version = u32::try_from(versions).map_err(|_| PlanError::TooManyVersions)?;
        Ok(Pin { plan: standard(), version })
    }
}

//! Opening accounts, by hand or by themselves.
//!
//! The problem: the installation's prices are settings, and a setting that changes must not change what anybody owes.
//!
//! The invariant: an account is opened, pinned to a version of a plan for all that it ever used, and that version is published if it
//! is new, all in one transaction. So other prices are another version, which accounts have that are opened later; and however
//! many are opened at once, a version is published once.

use std::sync::Arc;

use epoch::{CommandContext, Executed};
use epoch_postgres::PgTx;
use futures::FutureExt;
use rating::{
    account::{AccountCommand, AccountError, Pin},
    money::currency::Currency,
    pricing::plan_aggregate::{PlanCommand, PlanError, standard},
    validation::InvalidInput,
};
use uuid::Uuid;

use crate::invoicing::{error::LedgerError, finalize::aside, ledger::Ledger};

/// An account to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening {
    /// What everything is charged in.
    pub currency: Currency,
    /// The IANA time zone of its days and months.
    pub time_zone: String,
    /// What it is charged by; the standard plan if not said.
    pub plan: Option<Pin>,
}

impl Ledger {
    /// Opens an organization's account.
    ///
    /// # Errors
    /// [`LedgerError`]; the plan must be in the account's currency.
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

    /// The same in a transaction that does more.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn open_in(
        &self,
        tx: &mut PgTx,
        organization: Uuid,
        opening: &Opening,
        context: &CommandContext,
    ) -> Result<Executed, LedgerError> {
        if tx.load(&self.accounts, organization).await?.state.is_open() {
            // By this very request, perhaps.
            let first = tx.repeated::<AccountError>(context).await?;
            return first.ok_or(AccountError::AlreadyExists.into());
        }
        let pin = match opening.plan {
            Some(pin) => self.chosen(tx, pin, opening.currency).await?,
            None => self.offered(tx, opening.currency, context).await?,
        };
        let open = AccountCommand::Open { pin, currency: opening.currency, time_zone: opening.time_zone.clone() };
        Ok(tx.execute(&self.accounts, organization, &open, context).await?)
    }

    /// A version that was asked for.
    async fn chosen(&self, tx: &mut PgTx, pin: Pin, currency: Currency) -> Result<Pin, LedgerError> {
        let catalogue = tx.load(&self.plans, pin.plan).await?.state;
        catalogue.require_open()?;
        let plan = catalogue.version(pin.plan, pin.version)?.currency;
        if plan != currency {
            let reason = format!("{} is not the plan's, which is {}", currency.code(), plan.code());
            return Err(AccountError::from(InvalidInput::new("currency", reason)).into());
        }
        Ok(pin)
    }

    /// The version of the standard plan that has the installation's prices.
    async fn offered(&self, tx: &mut PgTx, currency: Currency, context: &CommandContext) -> Result<Pin, LedgerError> {
        let ours = self.standard.currency;
        if ours != currency {
            let (ours, currency) = (ours.code(), currency.code());
            let reason = format!("the standard plan is in {ours}: an account in {currency} needs a plan in {currency}");
            return Err(AccountError::from(InvalidInput::new("currency", reason)).into());
        }
        // Plans are no organization's.
        let of_plan = CommandContext { tenant: None, ..aside(context) };
        let offer = PlanCommand::PublishIfChanged(self.offered.as_ref().clone());
        tx.execute(&self.plans, standard(), &offer, &of_plan).await?;
        let versions = tx.load(&self.plans, standard()).await?.state.versions().len();
        let version = u32::try_from(versions).map_err(|_| PlanError::TooManyVersions)?;
        Ok(Pin { plan: standard(), version })
    }
}

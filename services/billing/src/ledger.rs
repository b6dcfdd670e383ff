//! The ledger: usage, plans and accounts, brought together.
//!
//! The problem: an amount is asked for in many ways (a draft, a final invoice, a budget, "what would this plan have cost?") and
//! must be the same in all of them.
//!
//! The invariant: every amount comes from what [`Ledger::used`] reads of usage, at the terms of the account, and the pure functions of
//! the domain. The clock is the ledger's own, so that a test can move it.

mod draft;
mod error;
mod finalize;
mod open;
mod simulate;
mod usage;

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use bigdecimal::num_bigint::BigInt;
use contracts::invoice::Correction;
use epoch::{Repository, Timestamp};
use epoch_postgres::PgStore;
use jiff::tz::TimeZone;
use uuid::Uuid;

use draft::sum;
pub use error::LedgerError;
pub(crate) use error::{at as refused_at, command_problem};
pub use open::Opening;
pub use simulate::{Effect, Effects, Sums};
pub use usage::{Used, When};
pub(crate) use usage::{rule_of, spans};

use rating::{
    account::{Account, Pin},
    calendar::{day::zone, month::Month, span::Span},
    invoice::InvoiceState,
    pricing::{
        plan::Plan,
        plan_aggregate::{PlanCatalogue, PlanDefinition},
        standard_plan::StandardPlan,
    },
    rating::{
        rate::{Adjustments, Invoice, rate_with},
        term::Term,
        usage_amounts::Metered,
    },
};

/// How often an invoice of one month can be made again after it was voided.
const MAX_ATTEMPTS: u32 = 20;

/// A clock.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Brings usage, plans and accounts together.
#[derive(Clone)]
pub struct Ledger {
    store: PgStore,
    /// All plans.
    pub plans: Repository<PlanCatalogue, PgStore>,
    /// All accounts.
    pub accounts: Repository<Account, PgStore>,
    /// All invoices.
    pub invoices: Repository<InvoiceState, PgStore>,
    standard: Arc<Plan>,
    /// What accounts are opened by.
    offered: Arc<PlanDefinition>,
    clock: Clock,
}

/// What a month of an account comes to.
#[derive(Debug, Clone)]
pub struct Statement {
    /// What was used.
    pub used: Used,
    /// What is done with the sum of the lines.
    pub adjustments: Adjustments,
    /// Lines and sums.
    pub invoice: Invoice,
}

impl Ledger {
    /// The ledger on a store. Accounts are opened by `standard`, which also stands in where there is none or it has no plan.
    #[must_use]
    pub fn new(store: PgStore, standard: StandardPlan, clock: Clock) -> Self {
        Self {
            plans: Repository::new(store.clone()),
            accounts: Repository::new(store.clone()),
            invoices: Repository::new(store.clone()),
            store,
            standard: Arc::new(standard.plan),
            offered: Arc::new(standard.definition),
            clock,
        }
    }

    /// Now, by its clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// The store that everything is in.
    #[must_use]
    pub fn store(&self) -> &PgStore {
        &self.store
    }

    /// The installation's prices: the plan of organizations without an account, and of accounts that were opened without a plan.
    #[must_use]
    pub fn standard(&self) -> &Plan {
        &self.standard
    }

    /// An account that exists.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn account(&self, organization: Uuid) -> Result<Arc<Account>, LedgerError> {
        let account = self.accounts.load(organization).await?.state;
        account.currency()?;
        Ok(account)
    }

    /// The month that is under way for an account.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn current_month(&self, account: &Account) -> Result<Month, LedgerError> {
        self.month_at(account, self.now())
    }

    /// The month of an account that an instant lies in.
    fn month_at(&self, account: &Account, at: Timestamp) -> Result<Month, LedgerError> {
        // Zones differ by less than a month, so the month is this one of UTC, the one before, or the one after.
        let mut month = Month::of(at, &TimeZone::UTC)?.previous()?;
        while self.period(account, month)?.0.end() <= at {
            month = month.next()?;
        }
        Ok(month)
    }

    /// A month of an account, and the zone of its days.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn period(&self, account: &Account, month: Month) -> Result<(Span, TimeZone), LedgerError> {
        let here = zone(account.time_zone(month))?;
        let next = month.next()?;
        let after = zone(account.time_zone(next))?;
        Ok((Span::new(month.beginning(&here)?, next.beginning(&after)?), here))
    }

    /// The months of an organization's account that a period lies in, in order of time.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn months(&self, organization: Uuid, period: Span) -> Result<Vec<Span>, LedgerError> {
        self.months_of(&self.accounts.load(organization).await?.state, period)
    }

    fn months_of(&self, account: &Account, period: Span) -> Result<Vec<Span>, LedgerError> {
        let mut month = self.month_at(account, period.start())?;
        let mut months = vec![self.period(account, month)?.0];
        while months.last().is_some_and(|last| last.end() < period.end()) {
            month = month.next()?;
            months.push(self.period(account, month)?.0);
        }
        Ok(months)
    }

    /// The plans that an account is or will be pinned to.
    pub(crate) async fn plans_of(&self, account: &Account) -> Result<BTreeMap<Pin, Plan>, LedgerError> {
        let mut plans = BTreeMap::new();
        for (_, pin) in account.pins() {
            if let Entry::Vacant(entry) = plans.entry(pin) {
                entry.insert(self.plans.load(pin.plan).await?.state.version(pin.plan, pin.version)?);
            }
        }
        Ok(plans)
    }

    /// What a month comes to, with corrections of earlier invoices.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn statement(
        &self,
        organization: Uuid,
        account: &Account,
        month: Month,
        when: When,
        corrections: &[Correction],
    ) -> Result<Statement, LedgerError> {
        let corrected = sum(corrections, account.currency()?)?;
        self.used(organization, account, month, when).await?.statement(account, &corrected)
    }

    /// The invoice of a month that counts, or the one that would be made next; and its id.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn invoice_of(&self, organization: Uuid, month: Month) -> Result<(Uuid, Arc<InvoiceState>), LedgerError> {
        for attempt in 1..MAX_ATTEMPTS {
            let id = invoice_id(organization, month, attempt);
            let invoice = self.invoices.load(id).await?.state;
            if invoice.voided().is_none() {
                return Ok((id, invoice));
            }
        }
        Err(LedgerError::TooManyAttempts { month })
    }
}

/// The same for the same attempt at the same month of the same organization.
fn invoice_id(organization: Uuid, month: Month, attempt: u32) -> Uuid {
    Uuid::new_v5(&organization, format!("invoice {month} {attempt}").as_bytes())
}

/// What is done with the sum of the lines. The minimum and the tax are those of the last plan of the period.
fn adjustments(account: &Account, usage: &[(Term, Metered)]) -> Result<Adjustments, LedgerError> {
    let Some((last, _)) = usage.last() else { return Err(LedgerError::EmptyPeriod) };
    Ok(Adjustments {
        discount_percent: account.discount_percent(),
        minimum: last.plan.minimum.clone(),
        tax_percent: last.plan.tax_percent.clone(),
        credit: account.credit()?.at_least_nothing().decimal(),
    })
}

/// Lines and sums of what was used.
fn invoice(account: &Account, usage: &[(Term, Metered)], corrections: &BigInt) -> Result<Invoice, LedgerError> {
    rate_with(usage, &adjustments(account, usage)?, corrections)?.ok_or(LedgerError::EmptyPeriod)
}

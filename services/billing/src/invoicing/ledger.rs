//! The ledger: the repositories of plans, accounts and invoices, the clock, and the months of an account.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use epoch::{Repository, Timestamp};
use epoch_postgres::PgStore;
use jiff::tz::TimeZone;
use rating::{
    account::{Account, Pin},
    calendar::{day::zone, month::Month, span::Span},
    invoice::InvoiceState,
    pricing::{
        plan::Plan,
        plan_aggregate::{PlanCatalogue, PlanDefinition},
        standard_plan::StandardPlan,
    },
};
use uuid::Uuid;

use crate::invoicing::error::LedgerError;

/// A clock.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Brings usage, plans and accounts together.
#[derive(Clone)]
pub struct Ledger {
    pub(super) store: PgStore,
    /// All plans.
    pub plans: Repository<PlanCatalogue, PgStore>,
    /// All accounts.
    pub accounts: Repository<Account, PgStore>,
    /// All invoices.
    pub invoices: Repository<InvoiceState, PgStore>,
    pub(super) standard: Arc<Plan>,
    /// What accounts are opened by.
    pub(super) offered: Arc<PlanDefinition>,
    pub(super) clock: Clock,
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
    pub(super) fn month_at(&self, account: &Account, at: Timestamp) -> Result<Month, LedgerError> {
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

    pub(super) fn months_of(&self, account: &Account, period: Span) -> Result<Vec<Span>, LedgerError> {
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
}

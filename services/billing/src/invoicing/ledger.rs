//! The ledger: the repositories of plans, accounts and invoices, a clock, and the calendar months of an account.

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

/// Returns the current instant.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Computes amounts from usage, plans and accounts.
#[derive(Clone)]
pub struct Ledger {
    pub(super) store: PgStore,
    pub plans: Repository<PlanCatalogue, PgStore>,
    pub accounts: Repository<Account, PgStore>,
    pub invoices: Repository<InvoiceState, PgStore>,
    pub(super) standard: Arc<Plan>,
    /// The definition by which the standard plan is published for new accounts.
    pub(super) standard_definition: Arc<PlanDefinition>,
    pub(super) clock: Clock,
}

impl Ledger {
    /// Returns a ledger on a store. New accounts get the `standard` plan. It also applies to organizations without an account and to
    /// accounts without a plan.
    #[must_use]
    pub fn new(store: PgStore, standard: StandardPlan, clock: Clock) -> Self {
        Self {
            plans: Repository::new(store.clone()),
            accounts: Repository::new(store.clone()),
            invoices: Repository::new(store.clone()),
            store,
            standard: Arc::new(standard.plan),
            standard_definition: Arc::new(standard.definition),
            clock,
        }
    }

    /// Returns the current instant by the ledger's clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        (self.clock)()
    }

    #[must_use]
    pub fn store(&self) -> &PgStore {
        &self.store
    }

    /// Returns the installation's prices, which apply to organizations without an account and to accounts without a plan.
    #[must_use]
    pub fn standard(&self) -> &Plan {
        &self.standard
    }

    /// Loads an account.
    ///
    /// # Errors
    /// [`LedgerError::Account`] when the organization has none.
    pub async fn account(&self, organization: Uuid) -> Result<Arc<Account>, LedgerError> {
        let account = self.accounts.load(organization).await?.state;
        account.currency()?;
        Ok(account)
    }

    /// Returns the current calendar month in an account's time zone.
    ///
    /// # Errors
    /// [`LedgerError::Days`] outside of the calendar.
    pub fn current_month(&self, account: &Account) -> Result<Month, LedgerError> {
        self.month_at(account, self.now())
    }

    /// Returns the calendar month of an account that contains an instant.
    pub(super) fn month_at(&self, account: &Account, at: Timestamp) -> Result<Month, LedgerError> {
        // Time zones differ from UTC by less than a month, so the UTC month, the previous or the next one contains the instant.
        let mut month = Month::of(at, &TimeZone::UTC)?.previous()?;
        while self.period(account, month)?.0.end() <= at {
            month = month.next()?;
        }
        Ok(month)
    }

    /// Returns the span of an account's month and the time zone of its days. When the time zone changes with the next month, the
    /// span ends where that month starts in its own zone.
    ///
    /// # Errors
    /// [`LedgerError::Days`] outside of the calendar.
    pub fn period(&self, account: &Account, month: Month) -> Result<(Span, TimeZone), LedgerError> {
        let here = zone(account.time_zone(month))?;
        let next = month.next()?;
        let after = zone(account.time_zone(next))?;
        Ok((Span::new(month.beginning(&here)?, next.beginning(&after)?), here))
    }

    /// Returns the calendar months of an organization's account that overlap a period, in order of time.
    ///
    /// # Errors
    /// [`LedgerError`] when the account cannot be read, and outside of the calendar.
    pub async fn months(&self, organization: Uuid, period: Span) -> Result<Vec<Span>, LedgerError> {
        self.account_months(&self.accounts.load(organization).await?.state, period)
    }

    pub(super) fn account_months(&self, account: &Account, period: Span) -> Result<Vec<Span>, LedgerError> {
        let mut month = self.month_at(account, period.start())?;
        let mut months = vec![self.period(account, month)?.0];
        while months.last().is_some_and(|last| last.end() < period.end()) {
            month = month.next()?;
            months.push(self.period(account, month)?.0);
        }
        Ok(months)
    }

    /// Loads the plan versions that an account is pinned to, including scheduled ones.
    pub(crate) async fn assigned_plans(&self, account: &Account) -> Result<BTreeMap<Pin, Plan>, LedgerError> {
        let mut plans = BTreeMap::new();
        for (_, pin) in account.pins() {
            if let Entry::Vacant(entry) = plans.entry(pin) {
                entry.insert(self.plans.load(pin.plan).await?.state.version(pin.plan, pin.version)?);
            }
        }
        Ok(plans)
    }

    /// Returns the organizations of up to `limit` accounts in order of id, starting after an id.
    ///
    /// # Errors
    /// [`sqlx::Error`] when the database cannot be read.
    pub async fn account_ids(&self, after: Option<Uuid>, limit: i64) -> Result<Vec<Uuid>, sqlx::Error> {
        let list =
            "select organization_id from billing_accounts where organization_id > $1 order by organization_id limit $2";
        let rows = sqlx::query_scalar(list).bind(after.unwrap_or(Uuid::nil())).bind(limit);
        rows.fetch_all(self.store.pool()).await
    }
}

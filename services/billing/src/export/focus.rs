//! What a period costs, as a data set of FOCUS: the FinOps Open Cost and Usage Specification, here version 1.2. Its mandatory columns,
//! those about consumption, prices, resources and SKUs that apply, and one of our own, which as the specification wants begins with `x_`.
//!
//! The problem: the specification wants each charge for usage to be a quantity times one price, and an account's price may have tiers,
//! free units and packages, change within the period, and be rounded once for all of a line.
//!
//! The invariant: all rows together come to what `/costs` says to the last digit, and, of a month of the account, to what its invoice
//! says; a frozen month is told as it was known when it was frozen, if not asked otherwise. Usage is priced in the order of time, by the rule of invoices; what of it lies in one tier of one version of a plan in one part of
//! the period is a row, for each key its part of it. Rows are decimals of 18 digits, rounded so that those of a line sum to the exact
//! line; what the line's own rounding adds is a row. What no key that is told stands for has a row without a resource, so that keys that
//! are too many to be told cost nothing less.

mod charges;
mod table;

use std::collections::BTreeMap;

use rating::{
    calendar::{slot::Slot, span::Span},
    rating::{term::Term, usage_amounts::UsageAmounts},
};
use sqlx::PgPool;
use usage::{
    queries::{
        groups::{GroupBy, GroupUsage},
        snapshot::Snapshot,
        usage_query::{UsagePage, UsageQuery},
    },
    read_error::ReadError,
};

use self::{charges::Priced, table::text};
use crate::{
    export::{
        focus::charges::{Piece, Used},
        usage_rows::MAX_ROWS,
    },
    invoicing::{error::LedgerError, ledger::Ledger, month_usage::rule_of},
};

/// How many keys are read at a time.
const KEYS: usize = 200;

/// The data set of a period; of at most `limit` keys, if that is said.
///
/// # Errors
/// As for rows.
pub(crate) async fn export(
    ledger: &Ledger,
    pool: &PgPool,
    asked: UsageQuery,
    slots: &[Slot],
    group_by: Option<GroupBy>,
    limit: Option<usize>,
) -> Result<String, LedgerError> {
    let (organization, period) = (asked.organization, asked.window.period);
    let terms = ledger.terms(organization, period).await?;
    // What came late for a frozen month is a correction of the month that it was settled with.
    let known_at = match asked.known_at {
        None => ledger.period_frozen_at(organization, period).await?,
        said => said,
    };
    let asked = UsageQuery { known_at, ..asked };
    let mut snapshot = Snapshot::of(pool, asked).await?.with_sharing_rules(rule_of(&terms));
    let months = ledger.months(organization, period).await?;
    let pieces = pieces(slots, &months, &terms);
    let counted = snapshot.counted();
    let spans: Vec<Span> = pieces.iter().map(|piece| piece.span.intersect(counted)).collect();
    let totals = snapshot.totals(&spans).await?;
    let both = totals.byte_ms.into_iter().zip(totals.run_ms);
    let whole: Vec<UsageAmounts> = both.map(|(byte_ms, run_ms)| UsageAmounts::of(byte_ms, run_ms)).collect();
    let most = limit.unwrap_or_else(|| MAX_ROWS / pieces.len().max(1));
    let told = match group_by {
        Some(group_by) => told(&mut snapshot, group_by, &spans, most).await?,
        None => Vec::new(),
    };
    let used = with_the_rest(told, &whole);
    let usage = by_term(&terms, &pieces, &whole);
    let (invoice, corrections) = ledger.invoiced(organization, period, &usage).await?;
    let priced = Priced::of(group_by, (&terms, &pieces), (&used, &whole));
    let charges = priced.charges(period, &invoice, &corrections);
    Ok(text(organization, &months, invoice.currency, &charges))
}

/// The slots, cut where a month of the account ends and where another plan begins to apply. All cover the period, in order of time.
fn pieces(slots: &[Slot], months: &[Span], terms: &[Term]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for slot in slots {
        for within in months.iter().map(|month| slot.span.intersect(*month)).filter(|within| !within.is_empty()) {
            for (index, term) in terms.iter().enumerate() {
                let span = within.intersect(term.span);
                if !span.is_empty() {
                    pieces.push(Piece { span, term: index });
                }
            }
        }
    }
    pieces
}

/// What was used by the first keys, up to `most`.
async fn told(snapshot: &mut Snapshot, group_by: GroupBy, spans: &[Span], most: usize) -> Result<Vec<Used>, ReadError> {
    let (mut told, mut after) = (Vec::new(), None);
    while told.len() < most {
        let limit = KEYS.min(most - told.len());
        let UsagePage { items, next } = snapshot.groups(group_by, spans, after, limit).await?;
        let names = match group_by {
            GroupBy::MachineType => snapshot.machine_types(&items).await?,
            _ => BTreeMap::new(),
        };
        for (key, GroupUsage { byte_ms, run_ms }) in items {
            // What is nobody's is part of the rest.
            let Some(key) = key else { continue };
            let of = |metered: &[i128], index| metered.get(index).copied().unwrap_or(0);
            let metered = (0..spans.len()).map(|index| UsageAmounts::of(of(&byte_ms, index), of(&run_ms, index)));
            let name = names.get(&key).cloned().unwrap_or_else(|| key.to_string());
            told.push(Used { key: Some(name), metered: metered.collect() });
        }
        let Some(next) = next else { break };
        after = Some(next);
    }
    Ok(told)
}

/// What is told, and before it what is not, so that both sum to the whole.
fn with_the_rest(told: Vec<Used>, whole: &[UsageAmounts]) -> Vec<Used> {
    let mut rest = whole.to_vec();
    for used in &told {
        for (rest, metered) in rest.iter_mut().zip(&used.metered) {
            *rest = rest.minus(metered);
        }
    }
    let mut all = vec![Used { key: None, metered: rest }];
    all.extend(told);
    all
}

fn by_term(terms: &[Term], pieces: &[Piece], whole: &[UsageAmounts]) -> Vec<(Term, UsageAmounts)> {
    let mut usage: Vec<_> = terms.iter().map(|term| (term.clone(), UsageAmounts::default())).collect();
    for (piece, metered) in pieces.iter().zip(whole) {
        if let Some((_, sum)) = usage.get_mut(piece.term) {
            *sum = sum.plus(metered);
        }
    }
    usage
}

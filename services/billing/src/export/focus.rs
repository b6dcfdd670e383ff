//! Costs of a period as a FOCUS data set (FinOps Open Cost and Usage Specification, version 1.2). It has the mandatory columns, the
//! applicable ones about consumption, prices, resources and SKUs, and columns of our own, which begin with `x_` as FOCUS requires.
//!
//! FOCUS describes each usage charge as a quantity times one unit price. But a price of an account may have tiers, free units and
//! packages, may change within the period, and is rounded once for the whole line. So a row is one key's part of the usage in one tier
//! of one plan version in one part of the period, and the following holds:
//! - All rows sum to the total of `/costs` exactly, and for a calendar month of the account to its invoice.
//! - A finalized month has the usage known when it was finalized, unless the query has a `known_at` of its own.
//! - Usage is priced in order of time, by the rules of invoices.
//! - Rows are decimals with 18 places, rounded so that the rows of a line sum to the exact line. The line's own rounding is a row.
//! - Usage of keys beyond the limit is combined in a row without a resource, so a limit never lowers the total.

mod charges;
mod table;

use std::collections::BTreeMap;

use rating::{
    calendar::{slot::Slot, span::Span},
    rating::{term::Term, usage_amounts::UsageAmounts},
    sharing::rule::SharingRules,
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
        focus::charges::{KeyUsage, Piece},
        usage_rows::MAX_ROWS,
    },
    invoicing::{error::LedgerError, ledger::Ledger},
};

/// The number of keys read at a time.
const KEYS_PER_PAGE: usize = 200;

/// Returns the data set of a period as CSV. At most `limit` keys have rows of their own (default: as many as fit).
///
/// # Errors
/// [`LedgerError`] when the usage exceeds a limit, or cannot be read or priced.
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
    // Late events of a finalized month are corrections of the month that settles them.
    let known_at = match asked.known_at {
        None => ledger.period_finalized_at(organization, period).await?,
        known_at => known_at,
    };
    let asked = UsageQuery { known_at, ..asked };
    let mut snapshot = Snapshot::of(pool, asked).await?.with_sharing_rules(SharingRules::of(&terms));
    let months = ledger.months(organization, period).await?;
    let pieces = pieces(slots, &months, &terms);
    let counted = snapshot.counted();
    let spans: Vec<Span> = pieces.iter().map(|piece| piece.span.intersect(counted)).collect();
    let totals = snapshot.totals(&spans).await?;
    let both = totals.byte_ms.into_iter().zip(totals.run_ms);
    let whole: Vec<UsageAmounts> = both.map(|(byte_ms, run_ms)| UsageAmounts::of(byte_ms, run_ms)).collect();
    let most = limit.unwrap_or_else(|| MAX_ROWS / pieces.len().max(1));
    let by_key = match group_by {
        Some(group_by) => usage_by_key(&mut snapshot, group_by, &spans, most).await?,
        None => Vec::new(),
    };
    let used = with_remainder(by_key, &whole);
    let usage = by_term(&terms, &pieces, &whole);
    let (invoice, corrections) = ledger.invoice_for_period(organization, period, &usage).await?;
    let priced = Priced::of(group_by, (&terms, &pieces), (&used, &whole));
    let charges = priced.charges(period, &invoice, &corrections);
    Ok(text(organization, &months, invoice.currency, &charges))
}

/// Divides slots where a calendar month of the account ends and where another plan begins to apply. The pieces cover the period, in
/// order of time.
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

/// Returns the usage of the first keys, at most `most`.
async fn usage_by_key(
    snapshot: &mut Snapshot,
    group_by: GroupBy,
    spans: &[Span],
    most: usize,
) -> Result<Vec<KeyUsage>, ReadError> {
    let (mut usage, mut after) = (Vec::new(), None);
    while usage.len() < most {
        let limit = KEYS_PER_PAGE.min(most - usage.len());
        let UsagePage { items, next } = snapshot.groups(group_by, spans, after, limit).await?;
        let names = match group_by {
            GroupBy::MachineType => snapshot.machine_types(&items).await?,
            _ => BTreeMap::new(),
        };
        for (key, GroupUsage { byte_ms, run_ms }) in items {
            // Usage without a key is part of the remainder.
            let Some(key) = key else { continue };
            let of = |metered: &[i128], index| metered.get(index).copied().unwrap_or(0);
            let metered = (0..spans.len()).map(|index| UsageAmounts::of(of(&byte_ms, index), of(&run_ms, index)));
            let name = names.get(&key).cloned().unwrap_or_else(|| key.to_string());
            usage.push(KeyUsage { key: Some(name), metered: metered.collect() });
        }
        let Some(next) = next else { break };
        after = Some(next);
    }
    Ok(usage)
}

/// Returns the usage by key, preceded by the remaining usage without a key, so that all sum to the whole.
fn with_remainder(by_key: Vec<KeyUsage>, whole: &[UsageAmounts]) -> Vec<KeyUsage> {
    let mut rest = whole.to_vec();
    for used in &by_key {
        for (rest, metered) in rest.iter_mut().zip(&used.metered) {
            *rest = rest.minus(metered);
        }
    }
    let mut all = vec![KeyUsage { key: None, metered: rest }];
    all.extend(by_key);
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

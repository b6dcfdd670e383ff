//! The tables that handlers declare, checked against each other.
//!
//! A rebuild builds the tables that a handler declares as its own. If another handler wrote one of them too, its rows
//! would be lost without notice when the generations are swapped.

use std::sync::Arc;

use crate::delivery::handler::PgHandler;

/// Returns whether a rebuild can build every table that the handler writes.
pub(crate) fn is_rebuildable(handler: &dyn PgHandler) -> bool {
    !handler.tables().is_empty() && handler.also_writes().is_empty()
}

/// A table that one handler rebuilds and another handler writes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{owner} declares {table} as its own, but {writer} writes it too: a rebuild would lose the rows of {writer}")]
pub struct SharedTable {
    /// Name of the table, without its schema.
    pub table: &'static str,
    /// The handler that declares the table as its own.
    pub owner: &'static str,
    /// The other handler that writes the table.
    pub writer: &'static str,
}

/// Checks that no handler of a schema rebuilds a table that another one writes.
///
/// # Errors
/// [`SharedTable`] for the first such table.
pub fn check_tables(handlers: &[Arc<dyn PgHandler>]) -> Result<(), SharedTable> {
    for (owner_index, owner) in handlers.iter().enumerate() {
        for table in owner.tables() {
            let is_writer = |handler: &&Arc<dyn PgHandler>| {
                handler.tables().iter().chain(handler.also_writes()).any(|written| written == table)
            };
            let others = handlers.iter().enumerate().filter(|(index, _)| *index != owner_index);
            if let Some(writer) = others.map(|(_, handler)| handler).find(is_writer) {
                return Err(SharedTable { table, owner: owner.name(), writer: writer.name() });
            }
        }
    }
    Ok(())
}
